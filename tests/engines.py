"""Engines for the tests: real vLLM on the CPU, in the process of the tests."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

import torch

from run_batch.jobs.engine.vllm_engine import Engine
from run_batch.jobs.job.rows import Generation, MappedRow
from run_batch.model.checkpoint.settings import ModelSettings
from run_batch.model.rendering.renderer import Prompt, Renderer

ENGINE = {
    "dtype": "float32",
    "enforce_eager": True,
    "max_model_len": 256,
    "max_num_seqs": 32,
    "kv_cache_memory_bytes": 1 << 27,
}
SAMPLING = {"temperature": 0.0, "max_tokens": 12}


@contextmanager
def running_engine(settings: ModelSettings, sampling: dict[str, Any]) -> Iterator[Engine]:
    """An engine that leaves nothing behind for the next one."""
    engine = Engine(settings, sampling)
    try:
        yield engine
    finally:
        engine.discard()


def generate(engine: Engine, renderer: Renderer, prompts: list[Prompt]) -> list[Generation]:
    """All rows through renderer and engine, in their order."""
    for index, rendered in enumerate(renderer.render(prompts)):
        assert not isinstance(rendered, Exception), rendered
        assert engine.add(MappedRow(index, rendered, {})) is None
    finished: list[Generation] = []
    while engine.unfinished:
        finished += engine.step()
    return sorted(finished, key=lambda generation: generation.row)


def plain_values(value: Any) -> Any:
    """An engine input, or a part of it, as plain values that can be compared."""
    if isinstance(value, torch.Tensor):
        return (value.dtype, tuple(value.shape), value.numpy().tobytes())
    if isinstance(value, dict) or hasattr(value, "items"):
        return {key: plain_values(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_values(item) for item in value]
    if hasattr(value, "offset"):
        return (value.offset, value.length, plain_values(value.is_embed))
    if hasattr(value, "data") and hasattr(value, "field"):
        return plain_values(value.field.reduce_data([value]))  # as the model gets it
    return value
