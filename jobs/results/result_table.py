"""Row results as the columns of a shard, and back."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from run_batch.io.features import classes_at, features_metadata, features_of
from run_batch.io.inputs.source import Source
from run_batch.io.outputs.readable_types import readable_type
from run_batch.jobs.job.carried_columns import carried_columns
from run_batch.jobs.job.config import JobConfig
from run_batch.jobs.job.rows import Generation, PooledForm, RowFailure, RowResult
from run_batch.jobs.job.work import Work
from run_batch.jobs.results.carried_rows import CarriedRows
from run_batch.jobs.results.generated_columns import generated_columns, generation_of
from run_batch.jobs.results.pooled_columns import pooled_columns, pooled_of
from run_batch.jobs.results.result_column import ResultColumn


@dataclass(frozen=True, slots=True)
class Compared:
    """The texts of a shard's rows beside those that are expected.

    Attributes:
        expected: of each row; None where the column is null, because that row expects nothing.
        matches: of each row, whether its text is that; None where it failed, or expects nothing.
    """

    expected: Sequence[str | None]
    matches: Sequence[bool | None]


class ShardTables:
    """Makes the tables of a job's shards. What they have of the input is read again for each: to hold it costs memory.

    Attributes:
        result_columns: the names of those that results are made of.
    """

    def __init__(
        self,
        config: JobConfig,
        source: Source,
        work: Work,
        is_wanted: Callable[[int], bool],
        pooled: PooledForm | None = None,
    ) -> None:
        """Read nothing yet.

        Args:
            work: the shards to make.
            is_wanted: whether the table of a shard that is passed over may be asked for later.
            pooled: what a pooling model gives of each row; None where text is generated.
        """
        self._config, self._source, self._plan, self._pooled = config, source, work.plan, pooled
        self._columns = generated_columns(config) if pooled is None else pooled_columns(pooled)
        self.result_columns = [*(column.name for column in self._columns), "error"]
        self._names = carried_columns(config.output, source.schema)
        columns = (config.input.id_column, *self._names, config.errors.expected_column)
        names = list(dict.fromkeys(name for name in columns if name))
        first = work.shards[0] if work.shards else 0
        self._carried = CarriedRows(source, work.plan, names, first, is_wanted) if names else None
        features = features_of(source.schema)
        self._classes = classes_at(features, config.errors.expected_column or "", ())
        self._metadata = features_metadata({new: features[old] for old, new in self._names.items() if old in features})

    def build(self, shard: int, results: Sequence[RowResult]) -> Iterator[tuple[pa.Table, Compared | None]]:
        """The rows of a whole shard, and how the text of each compares with that of `errors.expected_column`.

        One table, or several where carried columns are large, each read when it is made.

        Args:
            results: one for each row, in their order.

        Returns:
            Row ids, carried columns with their Hugging Face features, result columns; and, with that key, the comparison,
            which is column `matches_expected`, too.

        Raises:
            InputError: the input cannot be read.
        """
        read = self._carried.read(shard) if self._carried is not None else iter([None])
        left, first = list(results), self._plan.rows(shard).start

        def part(columns: pa.Table | None) -> tuple[pa.Table, Compared | None]:
            count = len(left) if columns is None else len(columns)
            taken = left[:count]
            del left[:count]
            return self._part(first + len(results) - len(left) - count, taken, columns)

        return map(part, read)

    def _part(
        self, first: int, results: Sequence[RowResult], read: pa.Table | None
    ) -> tuple[pa.Table, Compared | None]:
        """Consecutive rows of a shard.

        Args:
            read: what they have of the input; None if nothing is needed of it.
        """
        id_column = self._config.input.id_column
        if id_column and read is not None:
            row_ids = read[id_column].cast(pa.string())
        else:
            row_ids = pa.array(self._source.row_names(first, first + len(results)), pa.string())
        own = {new: _readable(read[old]) for old, new in self._names.items()} if read is not None else {}
        table = pa.table({"row_id": row_ids, **own, **_result_columns(self._columns, results)})
        table = table.replace_schema_metadata(self._metadata)
        if self._config.errors.expected_column is None or read is None:
            return table, None
        expected = _expected(read[self._config.errors.expected_column], self._classes)
        matches = _matches(results, expected)
        return table.append_column("matches_expected", pa.array(matches, pa.bool_())), Compared(expected, matches)

    def results(self, table: pa.Table, first: int) -> dict[int, RowResult]:
        """The rows of a shard, by row, as `build` took them.

        Args:
            table: of the shard, its `result_columns` at least.
            first: the shard's first row.
        """
        names = [name for name in self.result_columns if name in table.column_names]
        rows = enumerate(table.select(names).to_pylist(), first)
        return {row: self._result(row, cells) for row, cells in rows}

    def _result(self, row: int, cells: Mapping[str, Any]) -> RowResult:
        if cells["error"] is not None:
            kind, _, message = cells["error"].partition(": ")
            return RowFailure(row, kind, message)
        if self._pooled is not None:
            return pooled_of(row, cells, self._pooled)
        return generation_of(row, cells, self._config)

    def close(self) -> None:
        """Close the file of the input that is open."""
        if self._carried is not None:
            self._carried.close()


def _readable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = readable_type(column.type)
    return column if kind == column.type else column.cast(kind)


def _expected(column: pa.ChunkedArray, classes: Sequence[str]) -> list[str | None]:
    """The texts that are expected: of a class label, the name of the class; null for a number that is none."""
    if not classes:
        texts: list[str | None] = column.cast(pa.string()).to_pylist()
        return texts
    return [classes[n] if n is not None and 0 <= n < len(classes) else None for n in column.to_pylist()]


def _matches(results: Sequence[RowResult], expected: Sequence[str | None]) -> list[bool | None]:
    return [
        result.texts[0] == text if isinstance(result, Generation) and text is not None else None
        for result, text in zip(results, expected, strict=True)
    ]


def _result_columns(columns: Sequence[ResultColumn], results: Sequence[RowResult]) -> dict[str, pa.Array]:
    """What was generated, and the error of each row that failed."""
    rows = [None if isinstance(result, RowFailure) else result for result in results]
    errors = [result.error if isinstance(result, RowFailure) else None for result in results]
    arrays = {}
    for column in columns:
        arrays[column.name] = pa.array([None if row is None else column.value(row) for row in rows], column.type)
        if column.name == "generated_tokens":  # before those that may be long
            arrays["error"] = pa.array(errors, pa.string())
    return arrays
