"""Measures what reading the input costs: bytes read for each byte of the file, and peak memory of a fresh process.

    .venv/bin/python scripts/bench/reading.py [--rows 20000] [--image-bytes 100000]

The same rows in row groups of 64 rows, and in one: in pages of about 1 MiB, and in pages of 1,024 rows, as pyarrow
writes them by default. A process reads them as a job does: images and prompts shard by shard, and ids once more for the
results. Prints a line for each.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROWS_PER_SHARD = 1000


def write(path: Path, rows: int, image_bytes: int, row_group: int, page_rows: int) -> None:
    """A file of random images; a row group of it is in memory at once."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("uid", pa.string()), ("image", pa.binary()), ("prompt", pa.string())])
    group: list[pa.Table] = []
    with pq.ParquetWriter(path, schema, write_batch_size=page_rows) as writer:
        for start in range(0, rows, 64):
            numbers = range(start, min(start + 64, rows))
            columns = {
                "uid": [f"u{n}" for n in numbers],
                "image": [os.urandom(image_bytes) for _ in numbers],
                "prompt": [f"question {n}" for n in numbers],
            }
            group.append(pa.table(columns, schema))
            if sum(map(len, group)) >= row_group or numbers.stop == rows:
                table = pa.concat_tables(group).combine_chunks()  # a page ends where a chunk does
                writer.write_table(table, row_group_size=len(table))
                group = []


def read(path: Path) -> None:
    """Read a file as a job does, in this process, and print what it cost."""
    from run_batch.io.inputs.parquet import ParquetSource

    def count(file: str, key: str) -> int:
        return int(Path("/proc/self", file).read_text().split(f"{key}:")[1].split()[0])

    before, began = count("io", "rchar"), time.monotonic()
    source = ParquetSource(str(path))
    mapping, results = source.cursor(["image", "prompt"], 16), source.cursor(["uid"], 1024)
    for start in range(0, source.num_rows, ROWS_PER_SHARD):
        stop = min(start + ROWS_PER_SHARD, source.num_rows)
        rows = sum(batch.records.num_rows for cursor in (mapping, results) for batch in cursor.read(start, stop))
        assert rows == 2 * (stop - start)
    times_read = (count("io", "rchar") - before) / path.stat().st_size
    seconds = time.monotonic() - began
    print(f"{times_read:.3f} times the file read, peak {count('status', 'VmHWM') / 1000:.0f} MB, {seconds:.1f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--image-bytes", type=int, default=100_000)
    parser.add_argument("--read", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.read:
        read(options.read)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.parquet"
        for page_rows in (max(1, (1 << 20) // options.image_bytes), 1024):
            for row_group in (64, options.rows):
                write(path, options.rows, options.image_bytes, row_group, page_rows)
                command = [sys.executable, __file__, "--read", str(path)]
                said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
                groups = "groups of 64 rows" if row_group == 64 else "one group"
                print(f"{groups}, pages of up to {page_rows} rows: {said}", flush=True)


if __name__ == "__main__":
    main()
