"""Rows through a pooling model: what it gives of one, found out when its engine starts, and the results of rows."""

from typing import Any

import numpy as np

from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.rows import Pooled, PooledForm, RowFailure, RowResult

# The tasks of vLLM whose result is one vector for a prompt.
_EMBED, _CLASSIFY = "embed", "classify"
_PROBE = "probe"


def find_form(engine: Any) -> tuple[Any, PooledForm]:
    """vLLM's PoolingParams for all rows, and what the model gives of each.

    Raises:
        JobError: it gives no single vector for a prompt, or one that there is no column for.
    """
    from vllm import PoolingParams

    task = engine.model_config.get_pooling_task(engine.get_supported_tasks())
    if task not in (_EMBED, _CLASSIFY):
        raise JobError(
            f"engine.runner = 'pooling': the model's task is {task}, of which there is no column; expected an "
            "embedding or a score of the whole prompt (engine.convert, engine.pooler_config.task)"
        )
    params = PoolingParams(task=task)
    width = _width(engine, params)
    column = "embedding" if task == _EMBED else "score" if width == 1 else "probs"
    return params, PooledForm(column, width)


def _width(engine: Any, params: Any) -> int:
    """How many numbers the model gives of a row: known once it has run, so a prompt of one token is run."""
    from vllm.inputs.engine import tokens_input

    engine.add_request(_PROBE, tokens_input([0]), params)
    outputs: list[Any] = []
    while not outputs:
        outputs = [output for output in engine.step() if output.finished]
    return int(outputs[0].outputs.data.numel())


def pooled_result(output: Any) -> RowResult:
    """The result of a finished request.

    Args:
        output: vLLM's PoolingRequestOutput.
    """
    row = int(output.request_id)
    if getattr(output, "error", None) is not None:
        return RowFailure.of(row, "pooling_failed", str(output.error))
    values = output.outputs.data.detach().float().cpu().numpy().reshape(-1)
    if not np.isfinite(values).all():
        return RowFailure.of(row, "pooling_failed", "the model gives numbers that are not finite")
    return Pooled(row, values.tobytes(), len(output.prompt_token_ids))
