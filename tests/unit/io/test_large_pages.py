"""Values of large pages are read one by one: they are what pyarrow gives, in every form that it writes."""

import os
import random
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from counted_files import CountedFileSystem

from run_batch.io.inputs import large_pages, parquet_batches
from run_batch.io.inputs.page_headers import PageError
from run_batch.io.inputs.parquet import ParquetSource
from run_batch.io.inputs.source import InputError

ROWS = 300
NAMES = ["uid", "image", "note", "photo", "prompt"]


def contents(dice: random.Random) -> list[bytes | None]:
    """Images such as rows have: several times in succession, none, empty, alike, compressible."""
    found: list[bytes | None] = []
    while len(found) < ROWS:
        image = dice.randbytes(dice.choice([1, 500, 900, 5_000, 150_000 if dice.random() < 0.1 else 10]))
        more = [image, image[:400] + image, bytes(3000) + image * 2, b"", None]
        found += [more[dice.choice([0, 0, 0, 1, 2, 3, 4])]] * dice.choice([1, 1, 3])
    return found[:ROWS]


def table(seed: int) -> pa.Table:
    dice = random.Random(seed)
    images, notes, photos = (contents(dice) for _ in range(3))
    structs = [
        None if image is None and dice.random() < 0.5 else {"path": str(row) if row % 7 else None, "bytes": image}
        for row, image in enumerate(images)
    ]
    return pa.table(
        {
            "uid": [f"u{row}" for row in range(ROWS)],
            "image": pa.array(structs, pa.struct([("path", pa.string()), ("bytes", pa.binary())])),
            "note": pa.array([None if note is None else note.hex() for note in notes], pa.large_string()),
            "photo": pa.array([photo or b"" for photo in photos], pa.binary()),
            "prompt": [f"question {row % 5}" for row in range(ROWS)],
        }
    ).cast(
        pa.schema(
            [
                ("uid", pa.string()),
                ("image", pa.struct([("path", pa.string()), ("bytes", pa.binary())])),
                ("note", pa.large_string()),
                pa.field("photo", pa.binary(), nullable=False),
                ("prompt", pa.string()),
            ]
        )
    )


@pytest.fixture
def streamed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Pages of a few bytes count as large. The leaves that are read value by value, and what ends that."""
    told: list[str] = []
    find, read = large_pages.large_leaves, parquet_batches._read_values

    def noted_leaves(*arguments: Any) -> list[large_pages.Leaf]:
        leaves = find(*arguments)
        told.extend(f"{leaf.top}.{leaf.child}" for leaf in leaves)
        return leaves

    def noted_read(*arguments: Any) -> Any:
        try:
            yield from read(*arguments)
        except PageError as error:
            told.append(str(error))
            raise

    monkeypatch.setattr(large_pages, "LARGE_PAGE", 100)
    monkeypatch.setattr(large_pages, "_LEAST_RATIO", 0.0)
    monkeypatch.setattr(parquet_batches, "large_leaves", noted_leaves)
    monkeypatch.setattr(parquet_batches, "_read_values", noted_read)
    return told


def read(path: Path | str, names: Sequence[str], rows: int = 16) -> pa.Table:
    return pa.Table.from_batches(
        [batch.records for batch in ParquetSource(str(path)).cursor(names, rows).read(0, ROWS)]
    )


def assert_same(found: pa.Table, expected: pa.Table) -> None:
    for batch in found.to_batches():
        batch.validate(full=True)
    # A source gives columns that may be null, whatever its files say.
    assert found.equals(expected.cast(found.schema)) and found.schema.names == expected.schema.names


@pytest.mark.parametrize("codec", ["snappy", "zstd", "gzip", "brotli", "none", "lz4"])
@pytest.mark.parametrize("dictionary", [True, False])
def test_values_are_those_that_pyarrow_gives(tmp_path: Path, streamed: list[str], codec: str, dictionary: bool) -> None:
    for seed, write_batch in enumerate((1024, 100, 7)):
        expected = table(seed)
        options = {"row_group_size": 170, "write_batch_size": write_batch, "use_dictionary": dictionary}
        pq.write_table(expected, tmp_path / "rows.parquet", compression=codec, **options)
        for names in (NAMES, ["image"], ["prompt", "photo"], ["note", "image", "uid"]):
            assert_same(read(tmp_path / "rows.parquet", names, 16 + seed), expected.select(names))
    assert ("image.bytes" in streamed) == ("photo." in streamed) == (codec != "lz4")


@pytest.mark.parametrize(
    ("named", "why"),
    [
        ({"data_page_version": "2.0"}, "another kind of page"),
        ({"write_page_checksum": True}, "checksum"),
        ({"use_dictionary": False, "column_encoding": {"photo": "DELTA_BYTE_ARRAY"}}, "encoding"),
    ],
)
def test_pages_of_other_forms_are_left_to_pyarrow(
    tmp_path: Path, streamed: list[str], named: dict[str, Any], why: str
) -> None:
    pq.write_table(table(1), tmp_path / "rows.parquet", **named)
    assert_same(read(tmp_path / "rows.parquet", NAMES), table(1))
    assert any(why in told for told in streamed)


def test_images_that_come_again_later_are_left_to_pyarrow_from_there_on(tmp_path: Path, streamed: list[str]) -> None:
    images = [os.urandom(300) for _ in range(40)]
    expected = pa.table({"image": [*images, *images[:20]] * 5})
    pq.write_table(expected, tmp_path / "rows.parquet")
    assert read(tmp_path / "rows.parquet", ["image"]).equals(expected)
    assert streamed == ["image.", "a dictionary in another order than the rows"]


def test_lists_and_small_pages_are_left_to_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = pa.table({"image": [[os.urandom(50_000)]] * ROWS, "text": [os.urandom(100) for _ in range(ROWS)]})
    pq.write_table(expected, tmp_path / "rows.parquet")
    monkeypatch.setattr(parquet_batches, "_read_values", None)
    assert read(tmp_path / "rows.parquet", ["image", "text"]).equals(expected)


@pytest.mark.parametrize("codec", ["snappy", "zstd", "none"])
def test_a_damaged_page_is_told_as_damaged(tmp_path: Path, streamed: list[str], codec: str) -> None:
    pq.write_table(table(2).select(["image"]), tmp_path / "rows.parquet", compression=codec)
    content = bytearray((tmp_path / "rows.parquet").read_bytes())
    chunk = pq.read_metadata(tmp_path / "rows.parquet").row_group(0).column(1)
    content[chunk.dictionary_page_offset : chunk.dictionary_page_offset + 2000] = bytes(2000)
    (tmp_path / "rows.parquet").write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        read(tmp_path / "rows.parquet", ["image"])


@pytest.mark.parametrize("dictionary", [True, False])
def test_a_page_of_large_images_is_never_held(tmp_path: Path, dictionary: bool) -> None:
    expected = pa.table(
        {"n": range(ROWS), "image": [{"bytes": os.urandom(200_000), "path": None} for _ in range(ROWS)]}
    )
    pq.write_table(expected, tmp_path / "rows.parquet", use_dictionary=dictionary)
    cursor = ParquetSource(f"counted://{tmp_path / 'rows.parquet'}").cursor(["n", "image"], 16)
    before, arrow = CountedFileSystem.bytes_read, pa.total_allocated_bytes()
    tracemalloc.start()
    tracemalloc.reset_peak()
    row = most = 0
    for batch in cursor.read(0, ROWS):
        assert batch.records.equals(expected.slice(row, batch.records.num_rows).combine_chunks().to_batches()[0])
        row += batch.records.num_rows
        most = max(most, pa.total_allocated_bytes() - arrow)
    # Of 60 MB: two or three buffers of remote files, and a batch of 3 MB, twice.
    assert most + tracemalloc.get_traced_memory()[1] < 45e6
    tracemalloc.stop()
    assert CountedFileSystem.bytes_read - before < 1.1 * (tmp_path / "rows.parquet").stat().st_size
