"""Finished rows to shards: collects rows in any order and commits each shard once it is whole, in input order."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from run_batch.io.inputs.source import InputError, Source
from run_batch.io.outputs.shards import ShardError, ShardStore
from run_batch.jobs.results.commits import Commit, count_shard
from run_batch.jobs.job.config import JobConfig
from run_batch.jobs.job.errors import RunError, storage_failed
from run_batch.jobs.job.rows import Generation, TokenLogprob, RowResult
from run_batch.jobs.job.rows import RowFailure
from run_batch.jobs.job.plan import RESULT_COLUMNS
from run_batch.jobs.job.work import Work

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


class ResultWriter:
    """Holds the rows of unfinished shards, and writes whole shards in a thread of its own.

    Attributes:
        seconds: spent on writing so far.
        rows_added, failed_added: rows taken so far, and those of them with an error.
        rows_committed, failed_committed: those of them in committed shards.
    """

    def __init__(
        self,
        config: JobConfig,
        work: Work,
        source: Source,
        store: ShardStore,
        metadata: Mapping[str, str],
        on_commit: Callable[[Commit], None],
    ) -> None:
        """Args:
        work: the shards to commit.
        on_commit: told of each shard that is committed, in the thread.
        """
        self._config = config
        self._work = work
        self._source = source
        self._store = store
        self._metadata = metadata
        self._on_commit = on_commit
        self._open: dict[int, dict[int, RowResult]] = {}
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="shard-writer")
        self._writing: list[Future[None]] = []
        self.seconds = 0.0
        self.rows_added = self.failed_added = 0
        self.rows_committed = self.failed_committed = 0

    @property
    def queued(self) -> int:
        """Whole shards that are not on disk yet."""
        return len(self._writing)

    def add(self, result: RowResult) -> None:
        """Take one finished row.

        Raises:
            RunError: a shard could not be written.
        """
        shard = result.row // self._work.plan.rows_per_shard
        rows = self._open.setdefault(shard, {})
        rows[result.row] = result
        self.rows_added += 1
        self.failed_added += isinstance(result, RowFailure)
        if len(rows) == len(self._work.rows(shard)):
            del self._open[shard]
            self._writing.append(self._thread.submit(self._commit, shard, rows))
        self._raise_failed(only_done=True)

    def finish(self) -> None:
        """Wait until all whole shards are on disk.

        Raises:
            RunError: a shard could not be written.
        """
        self._raise_failed(only_done=False)
        self._thread.shutdown()

    def _raise_failed(self, only_done: bool) -> None:
        while self._writing and (self._writing[0].done() or not only_done):
            self._writing.pop(0).result()

    def _commit(self, shard: int, results: dict[int, RowResult]) -> None:
        rows = self._work.plan.rows(shard)
        attempt = self._work.attempts.get(shard, 0)
        started = time.monotonic()
        failed = sum(isinstance(result, RowFailure) for result in results.values())
        try:
            if shard in self._work.retried:
                results = {**_generations(self._store.read(shard), rows.start), **results}
            table = self._table(rows, [results[row] for row in rows])
            self._store.commit(shard, table, self._metadata, attempt)
            self._on_commit(count_shard(shard, attempt, table))
        except (InputError, ShardError) as error:
            raise RunError(str(error)) from None
        except OSError as error:
            raise storage_failed(f"shard {shard} cannot be written to {self._store.folder}", error) from error
        self.seconds += time.monotonic() - started
        self.rows_committed += len(self._work.rows(shard))
        self.failed_committed += failed

    def _table(self, rows: range, results: list[RowResult]) -> pa.Table:
        """The whole shard. Ids and carried columns are read again: holding them would cost memory."""
        id_column, columns = self._config.input.id_column, self._config.output.columns
        expected = self._config.errors.expected_column
        names = list(dict.fromkeys(name for name in (id_column, expected, *columns) if name))
        carried = None
        if names:
            batches = [batch.records for batch in self._source.read(rows.start, rows.stop, names, 1024)]
            carried = pa.Table.from_batches(batches)
        if carried is not None and expected:
            results = compare_texts(results, carried[expected].to_pylist())
        if carried is not None and id_column:
            row_ids = carried[id_column].cast(pa.string())
        else:
            row_ids = pa.array(self._source.row_names(rows.start, rows.stop), pa.string())
        own = {name: carried[name] for name in columns} if carried is not None else {}
        return build_table(self._config, {"row_id": row_ids, **own}, results)


def compare_texts(results: list[RowResult], expected: list[str | None]) -> list[RowResult]:
    """Rows whose text is not what is expected of them become failures; null expects nothing."""
    return [
        RowFailure.of(result.row, "unexpected_text", f"expected {text!r}, found {result.texts[0]!r}")
        if isinstance(result, Generation) and text is not None and result.texts[0] != text
        else result
        for result, text in zip(results, expected, strict=True)
    ]


def build_table(config: JobConfig, carried: Mapping[str, Any], results: list[RowResult]) -> pa.Table:
    """The result columns of a shard, next to its ids and carried columns."""
    rows = [result if isinstance(result, Generation) else None for result in results]

    def column(values: list[Any], kind: pa.DataType) -> pa.Array:
        return pa.array(values, kind)

    columns = dict(carried)
    columns["text"] = column([r and r.texts[0] for r in rows], pa.string())
    if config.sampling.get("n", 1) > 1:
        columns["texts"] = column([r and list(r.texts) for r in rows], pa.list_(pa.string()))
    columns["finish_reason"] = column([r and r.finish_reason for r in rows], pa.string())
    columns["prompt_tokens"] = column([r and r.prompt_tokens for r in rows], pa.int32())
    columns["generated_tokens"] = column([r and r.generated_tokens for r in rows], pa.int32())
    columns["error"] = column([r.error if isinstance(r, RowFailure) else None for r in results], pa.string())
    if config.sampling.get("logprobs") is not None:
        columns["logprobs"] = column([r and _logprobs(r) for r in rows], _LOGPROBS)
    return pa.table(columns)


def _logprobs(row: Generation) -> list[list[dict[str, Any]]] | None:
    if row.logprobs is None:
        return None
    return [
        [{"token_id": c.token_id, "token": c.token, "logprob": c.logprob, "rank": c.rank} for c in position]
        for position in row.logprobs
    ]


def _generations(table: pa.Table, first: int) -> dict[int, RowResult]:
    """The rows of a shard that did not fail, as `build_table` took them."""
    names = [name for name in RESULT_COLUMNS[1:] if name in table.column_names]
    rows = enumerate(table.select(names).to_pylist(), first)
    return {index: _generation(index, row) for index, row in rows if row["error"] is None}


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
