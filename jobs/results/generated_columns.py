"""The columns of a shard that hold what was generated: their names, Arrow types and values, and back.

Types depend on the job's settings alone, so that all shards of a job have the same. Where `sampling.n` asks for several
sequences, a column of what each sequence has is a list of that.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from run_batch.jobs.job.config import JobConfig
from run_batch.jobs.job.config_tables import EXTRA_COLUMNS
from run_batch.jobs.job.rows import Candidates, Generation, Timing, TokenLogprob
from run_batch.jobs.results.result_column import ResultColumn

_CANDIDATES = pa.list_(
    pa.struct([("token_id", pa.int32()), ("token", pa.string()), ("logprob", pa.float32()), ("rank", pa.int32())])
)
_TIMING = pa.struct([(f"{name}_seconds", pa.float32()) for name in Timing.__struct_fields__])


def generated_columns(config: JobConfig) -> list[ResultColumn]:
    """The columns of a job, in their order, without `error`."""
    several = _is_several(config)
    columns = [
        ResultColumn("text", pa.string(), lambda r: r.texts[0]),
        ResultColumn("texts", pa.list_(pa.string()), lambda r: r.texts),
        ResultColumn("finish_reason", pa.string(), lambda r: r.finish_reason),
        ResultColumn("finish_reasons", pa.list_(pa.string()), lambda r: r.finish_reasons),
        ResultColumn("prompt_tokens", pa.int32(), lambda r: r.prompt_tokens),
        ResultColumn("generated_tokens", pa.int32(), lambda r: r.generated_tokens),
        _by_sequence("logprobs", pa.list_(_CANDIDATES), _logprobs, several),
        _by_sequence("token_ids", pa.list_(pa.int32()), lambda r: r.token_ids, several),
        _by_sequence("stop_reason", pa.string(), lambda r: r.stop_reasons, several),
        ResultColumn("prompt_logprobs", pa.list_(_CANDIDATES), lambda r: _positions(r.prompt_logprobs)),
        ResultColumn("timing", _TIMING, lambda r: r.timing and _timing(r.timing)),
    ]
    left_out = set(EXTRA_COLUMNS).difference(config.output.extra)
    if not several:
        left_out |= {"texts", "finish_reasons"}
    if config.sampling.get("logprobs") is None:
        left_out |= {"logprobs"}
    return [column for column in columns if column.name not in left_out]


def generation_of(row: int, cells: Mapping[str, Any], config: JobConfig) -> Generation:
    """A row as `generated_columns` took it.

    Args:
        row: index in the input.
        cells: by column.
    """

    def by_sequence(name: str) -> Sequence[Any] | None:
        cell = cells.get(name)
        if name not in cells or (cell is None and name != "stop_reason"):
            return None
        return cell if _is_several(config) else [cell]

    logprobs, token_ids, stop_reasons = map(by_sequence, ("logprobs", "token_ids", "stop_reason"))
    return Generation(
        row,
        tuple(cells.get("texts") or [cells["text"]]),
        cells["finish_reason"],
        cells["prompt_tokens"],
        cells["generated_tokens"],
        None if logprobs is None else tuple(tuple(map(_candidates, positions)) for positions in logprobs),
        tuple((cells.get("finish_reasons") or ())[1:]),
        None if token_ids is None else tuple(map(tuple, token_ids)),
        None if stop_reasons is None else tuple(stop_reasons),
        _prompt_logprobs(cells.get("prompt_logprobs")),
        Timing(*cells["timing"].values()) if cells.get("timing") is not None else None,
    )


def _is_several(config: JobConfig) -> bool:
    """Whether rows may have several sequences."""
    return int(config.sampling.get("n") or 1) > 1


def _by_sequence(
    name: str, kind: pa.DataType, values: Callable[[Generation], Sequence[Any] | None], several: bool
) -> ResultColumn:
    """A column of what each sequence has: the only one's, or a list."""

    def value(result: Generation) -> Any:
        found = values(result)
        return found if several or found is None else found[0]

    return ResultColumn(name, pa.list_(kind) if several else kind, value)


def _logprobs(result: Generation) -> Sequence[Any] | None:
    return None if result.logprobs is None else [_positions(sequence) for sequence in result.logprobs]


def _positions(positions: Sequence[Candidates | None] | None) -> list[list[dict[str, Any]] | None] | None:
    return None if positions is None else [None if found is None else list(map(_plain, found)) for found in positions]


def _plain(candidate: TokenLogprob) -> dict[str, Any]:
    return {name: getattr(candidate, name) for name in TokenLogprob.__struct_fields__}


def _timing(timing: Timing) -> dict[str, float]:
    return {f"{name}_seconds": getattr(timing, name) for name in Timing.__struct_fields__}


def _candidates(position: Sequence[Mapping[str, Any]]) -> Candidates:
    return tuple(TokenLogprob(**candidate) for candidate in position)


def _prompt_logprobs(positions: Sequence[Any] | None) -> tuple[Candidates | None, ...] | None:
    return None if positions is None else tuple(None if position is None else _candidates(position) for position in positions)
