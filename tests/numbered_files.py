"""Folders of Parquet files whose rows are numbered through, and the numbers that a source reads of them."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from run_batch.io.inputs.source import Source


def write(folder: Path, names: Sequence[str], rows: int = 10) -> Path:
    """Files of `rows` rows each, whose column `n` counts on from one to the next."""
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"n": list(range(i * rows, (i + 1) * rows))}), folder / name, row_group_size=4)
    return folder


def numbers(source: Source, start: int = 0, stop: int | None = None) -> list[int]:
    found: list[int] = []
    for batch in source.cursor(["n"], 3).read(start, source.num_rows if stop is None else stop):
        assert batch.start == start + len(found)
        found += batch.records["n"].to_pylist()
    return found
