"""Arrow files and streams as inputs: any row can be sought, and nothing is copied to find it."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.ipc as ipc
import pytest

from run_batch.io.inputs.open_files import open_files
from run_batch.io.inputs.source import InputError, LostInputError, Source

TABLE = pa.table(
    {
        "image": [bytes([n]) * 9 for n in range(50)],
        "n": range(50),
        "word": pa.array([f"word {n % 3}" for n in range(50)]).dictionary_encode(),
        "nested": [[{"a": n}] for n in range(50)],
    }
)


def write(path: Path, kind: str, compression: str | None, table: pa.Table = TABLE) -> Path:
    options = ipc.IpcWriteOptions(compression=compression, emit_dictionary_deltas=kind == "stream")
    if kind == "feather":
        feather.write_feather(table, path, compression=compression or "uncompressed", chunksize=7)
        return path
    with (ipc.new_file if kind == "file" else ipc.new_stream)(path, table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=7)
    return path


def read(source: Source, columns: list[str], start: int, stop: int) -> list[dict[str, Any]]:
    batches = list(source.cursor(columns, 3).read(start, stop))
    assert all(0 < batch.records.num_rows <= 3 for batch in batches)
    return [row for batch in batches for row in batch.records.to_pylist()]


@pytest.mark.parametrize("compression", [None, "zstd"])
@pytest.mark.parametrize("kind", ["file", "stream", "feather"])
def test_any_stretch_of_rows_is_what_was_written(tmp_path: Path, kind: str, compression: str | None) -> None:
    source = open_files([str(write(tmp_path / "rows.arrow", kind, compression))], None)
    assert source.num_rows == 50
    for columns in (["nested", "word"], ["n"], ["image", "n", "word", "nested"]):
        expected = TABLE.select(columns).to_pylist()
        for start in range(0, 50, 9):
            for stop in range(start, 51, 11):
                assert read(source, columns, start, stop) == expected[start:stop]
    cursor = source.cursor(["n"], 100)
    for start in (40, 3, 21):
        assert next(cursor.read(start, start + 1)).records.to_pylist() == [{"n": start}]
    assert [row for found in source.starts() for row in found] == list(range(0, 50, 7))


def test_a_file_is_read_in_place(tmp_path: Path) -> None:
    table = pa.table({"image": [b"x" * 1_000_000] * 64, "n": range(64)})
    path = write(tmp_path / "rows.arrow", "file", None, table)
    before = pa.total_allocated_bytes()
    source = open_files([str(path)], None)
    batches = list(source.cursor(["image"], 16).read(0, 64))
    assert sum(batch.records.nbytes for batch in batches) >= 64_000_000
    assert pa.total_allocated_bytes() - before < 1_000_000


def test_types_of_several_files_are_brought_to_a_common_one(tmp_path: Path) -> None:
    write(tmp_path / "a.arrow", "file", None, pa.table({"n": pa.array([1], pa.int8())}))
    write(tmp_path / "b.feather", "stream", None, pa.table({"n": pa.array([2], pa.int64())}))
    source = open_files([str(tmp_path)], None)
    assert read(source, ["n"], 0, 2) == [{"n": 1}, {"n": 2}] and source.schema.field("n").type == pa.int64()


@pytest.mark.parametrize("kind", ["file", "stream"])
@pytest.mark.parametrize("size", [0, 6, 40, 2000])
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, kind: str, size: int) -> None:
    path = write(tmp_path / "rows.arrow", kind, None)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(InputError, match=r"rows\.arrow"):
        open_files([str(path)], None)


def test_other_data_of_the_same_size_is_another_input(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.arrow", "file", None)
    source = open_files([str(path)], None)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"word 1", b"WORD 1"))
    assert open_files([str(path)], None).parts != source.parts
    with pytest.raises(LostInputError, match="has changed"):
        read(source, ["word"], 0, 3)


def test_remote_files_are_read_as_local_ones(tmp_path: Path) -> None:
    import fsspec

    for kind in ("file", "stream"):
        content = write(tmp_path / f"{kind}.arrow", kind, "zstd").read_bytes()
        fsspec.filesystem("memory").pipe(f"/arrow/{kind}.arrow", content)
    source = open_files(["memory://arrow"], None)
    assert (
        read(source, ["n", "word"], 45, 55)
        == TABLE.select(["n", "word"]).to_pylist()[45:] + TABLE.select(["n", "word"]).to_pylist()[:5]
    )
