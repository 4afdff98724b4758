"""Row results as the columns of a shard, and back."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from run_batch.io.features import features_metadata, features_of
from run_batch.io.inputs.source import Source
from run_batch.io.outputs.readable_types import readable_type
from run_batch.jobs.job.columns import RESULT_COLUMNS
from run_batch.jobs.job.config import JobConfig
from run_batch.jobs.job.rows import Generation, RowFailure, RowResult, TokenLogprob
from run_batch.jobs.job.work import Work
from run_batch.jobs.results.carried_rows import CarriedRows

_LOGPROBS = pa.list_(
    pa.list_(
        pa.struct(
            [
                ("token_id", pa.int32()),
                ("token", pa.string()),
                ("logprob", pa.float32()),
                ("rank", pa.int32()),
            ]
        )
    )
)


class ShardTables:
    """Makes the tables of a job's shards. What they have of the input is read again for each: to hold it costs memory."""

    def __init__(self, config: JobConfig, source: Source, work: Work, is_wanted: Callable[[int], bool]) -> None:
        """Read nothing yet.

        Args:
            work: the shards to make.
            is_wanted: whether the table of a shard that is passed over may be asked for later.
        """
        self._config, self._source, self._plan = config, source, work.plan
        columns = (config.input.id_column, *config.output.columns, config.errors.expected_column)
        names = list(dict.fromkeys(name for name in columns if name))
        first = work.shards[0] if work.shards else 0
        self._carried = CarriedRows(source, work.plan, names, first, is_wanted) if names else None
        features = features_of(source.schema)
        self._metadata = features_metadata({name: features[name] for name in config.output.columns if name in features})

    def build(self, shard: int, results: Sequence[RowResult]) -> tuple[pa.Table, list[bool | None] | None]:
        """The table of a whole shard, and whether the text of each row is the one of `errors.expected_column`.

        Args:
            results: one for each row, in their order.

        Returns:
            Row ids, carried columns with their Hugging Face features, and result columns; and, with that key, for each row whether its text is as
            expected: None where it failed, and where the column is null, because that row expects nothing.

        Raises:
            InputError: the input cannot be read.
        """
        rows, id_column = self._plan.rows(shard), self._config.input.id_column
        read = self._carried.read(shard) if self._carried is not None else pa.table({})
        if id_column:
            row_ids = read[id_column].cast(pa.string())
        else:
            row_ids = pa.array(self._source.row_names(rows.start, rows.stop), pa.string())
        own = {name: _readable(read[name]) for name in self._config.output.columns}
        table = build_table(self._config.sampling, {"row_id": row_ids, **own}, results)
        table = table.replace_schema_metadata(self._metadata)
        if self._config.errors.expected_column is None:
            return table, None
        matches = _matches(results, read[self._config.errors.expected_column])
        return table.append_column("matches_expected", pa.array(matches, pa.bool_())), matches

    def close(self) -> None:
        """Close the file of the input that is open."""
        if self._carried is not None:
            self._carried.close()


def _readable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = readable_type(column.type)
    return column if kind == column.type else column.cast(kind)


def _matches(results: Sequence[RowResult], expected: pa.ChunkedArray) -> list[bool | None]:
    return [
        result.texts[0] == text if isinstance(result, Generation) and text is not None else None
        for result, text in zip(results, expected.cast(pa.string()).to_pylist(), strict=True)
    ]


def build_table(sampling: Mapping[str, Any], carried: Mapping[str, Any], results: Sequence[RowResult]) -> pa.Table:
    """The result columns of a shard, after its ids and carried columns.

    Args:
        sampling: the job's sampling settings: `n` and `logprobs` make columns of their own.
    """
    rows = [result if isinstance(result, Generation) else None for result in results]
    errors = [result.error if isinstance(result, RowFailure) else None for result in results]

    columns = dict(carried)
    columns["text"] = pa.array([r and r.texts[0] for r in rows], pa.string())
    if sampling.get("n", 1) > 1:
        columns["texts"] = pa.array([r and list(r.texts) for r in rows], pa.list_(pa.string()))
    columns["finish_reason"] = pa.array([r and r.finish_reason for r in rows], pa.string())
    columns["prompt_tokens"] = pa.array([r and r.prompt_tokens for r in rows], pa.int32())
    columns["generated_tokens"] = pa.array([r and r.generated_tokens for r in rows], pa.int32())
    columns["error"] = pa.array(errors, pa.string())
    if sampling.get("logprobs") is not None:
        columns["logprobs"] = pa.array([r and _logprobs(r) for r in rows], _LOGPROBS)
    return pa.table(columns)


def _logprobs(row: Generation) -> list[list[dict[str, Any]]] | None:
    if row.logprobs is None:
        return None
    return [
        [{"token_id": c.token_id, "token": c.token, "logprob": c.logprob, "rank": c.rank} for c in position]
        for position in row.logprobs
    ]


def row_results(table: pa.Table, first: int) -> dict[int, RowResult]:
    """The rows of a shard, by row, as `build_table` took them.

    Args:
        first: the shard's first row.
    """
    names = [name for name in RESULT_COLUMNS[1:] if name in table.column_names]
    return {index: _row_result(index, row) for index, row in enumerate(table.select(names).to_pylist(), first)}


def _row_result(index: int, row: Mapping[str, Any]) -> RowResult:
    if row["error"] is None:
        return _generation(index, row)
    kind, _, message = row["error"].partition(": ")
    return RowFailure(index, kind, message)


def _generation(index: int, row: Mapping[str, Any]) -> Generation:
    found: Sequence[Sequence[Mapping[str, Any]]] | None = row.get("logprobs")
    logprobs = None
    if found is not None:
        logprobs = tuple(tuple(TokenLogprob(**candidate) for candidate in position) for position in found)
    return Generation(
        index,
        tuple(row.get("texts") or [row["text"]]),
        row["finish_reason"],
        row["prompt_tokens"],
        row["generated_tokens"],
        logprobs,
    )
