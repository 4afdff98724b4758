"""Files of one input whose columns differ: what is brought together, and what is refused if the job uses it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from run_batch.io.inputs.columns import common_type
from run_batch.io.inputs.parquet import ParquetSource
from run_batch.io.inputs.source import InputError

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
PARTS = [("role", pa.string()), ("content", pa.string())]


def source(folder: Path, *files: Mapping[str, Any] | pa.Table) -> ParquetSource:
    """The source of files `0.parquet`, `1.parquet`, …"""
    for i, columns in enumerate(files):
        table = columns if isinstance(columns, pa.Table) else pa.table(columns)
        pq.write_table(table, folder / f"{i}.parquet")
    return ParquetSource(str(folder))


def read(found: ParquetSource, *columns: str) -> pa.Table:
    """All rows; fails if two batches have different columns or types."""
    batches = [batch.records for batch in found.cursor(columns, 2).read(0, found.num_rows)]
    assert all(batch.schema.equals(batches[0].schema) for batch in batches)
    assert batches[0].schema.equals(pa.schema([found.schema.field(name) for name in columns]))
    return pa.Table.from_batches(batches)


SAME_VALUES: list[tuple[pa.DataType, pa.DataType, list[Any]]] = [
    (pa.string(), pa.large_string(), ["a", None]),
    (pa.string(), pa.string_view(), ["a", "b"]),
    (pa.dictionary(pa.int32(), pa.string()), pa.string(), ["a", None]),
    (pa.dictionary(pa.int8(), pa.large_string()), pa.dictionary(pa.int32(), pa.string()), ["a", "b"]),
    (pa.json_(), pa.string(), ["{}", "[]"]),
    (pa.binary(), pa.large_binary(), [b"a", None]),
    (pa.binary(2), pa.binary(), [b"ab", b"cd"]),
    (pa.int32(), pa.int64(), [-(2**31), 2**31 - 1]),
    (pa.uint8(), pa.int8(), [0, 127]),
    (pa.uint32(), pa.int32(), [0, 2**31 - 1]),
    (pa.float32(), pa.float64(), [0.5, None]),
    (pa.int16(), pa.float32(), [2**15 - 1, -7]),
    (pa.list_(pa.string()), pa.large_list(pa.large_string()), [["a"], [], None]),
    (pa.list_(pa.field("element", pa.int8(), nullable=False)), pa.list_(pa.int64()), [[1], []]),
    (pa.list_(pa.float32(), 2), pa.list_(pa.float32(), 3), [None]),
    (pa.list_(pa.null()), pa.list_(pa.struct(PARTS)), [[], None]),
    (IMAGE, pa.struct([("path", pa.null()), ("bytes", pa.large_binary())]), [{"bytes": b"x", "path": None}, None]),
    (pa.list_(pa.struct(PARTS)), pa.list_(pa.struct(PARTS[::-1])), [[{"role": "user", "content": "x"}]]),
    (pa.map_(pa.string(), pa.int8()), pa.map_(pa.string(), pa.int8()), [[("a", 1)]]),
    (pa.decimal128(6, 2), pa.decimal128(9, 1), [None]),
]


@pytest.mark.parametrize(("first", "second", "values"), SAME_VALUES, ids=str)
def test_types_that_hold_the_same_values_are_brought_together(
    tmp_path: Path, first: pa.DataType, second: pa.DataType, values: list[Any]
) -> None:
    for kinds in ((first, second), (second, first)):
        found = source(tmp_path, *({"a": pa.array(values, kind)} for kind in kinds))
        assert not found.unusable
        assert read(found, "a")["a"].to_pylist() == values * 2


@pytest.mark.parametrize(
    "kind",
    [pa.int8(), pa.string(), IMAGE, pa.list_(IMAGE), pa.dictionary(pa.int32(), pa.string()), pa.date32()],
    ids=str,
)
def test_a_file_without_values_takes_the_type_of_the_others(tmp_path: Path, kind: pa.DataType) -> None:
    found = source(tmp_path, {"a": pa.nulls(2)}, {"a": pa.nulls(1, kind)}, {"a": pa.nulls(1)})
    assert found.schema.field("a").type == kind and not found.unusable
    assert read(found, "a")["a"].to_pylist() == [None] * 4


def test_a_field_that_the_structs_of_one_file_lack_is_null_there(tmp_path: Path) -> None:
    found = source(tmp_path, {"a": [{"x": 1}]}, {"a": [{"y": "b"}]}, {"a": [{"x": 2, "y": "c"}]})
    assert read(found, "a")["a"].to_pylist() == [{"x": 1, "y": None}, {"x": None, "y": "b"}, {"x": 2, "y": "c"}]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        *((pa.string(), pa.binary()), (pa.int64(), pa.string()), (pa.bool_(), pa.int8()), (IMAGE, pa.binary())),
        *((pa.int64(), pa.uint64()), (pa.int64(), pa.float64()), (pa.uint64(), pa.float32())),
        *((pa.list_(pa.string()), pa.string()), (pa.list_(pa.string()), pa.list_(pa.int8()))),
        *((pa.timestamp("us", "UTC"), pa.timestamp("us")), (pa.date32(), pa.timestamp("s"))),
        *((IMAGE, pa.struct([("bytes", pa.string())])), (pa.list_view(pa.string()), pa.list_(pa.string()))),
        *((pa.null(), pa.list_view(pa.int8())), (pa.string_view(), pa.dictionary(pa.int8(), pa.string_view()))),
    ],
    ids=str,
)
def test_types_that_do_not_hold_the_same_values_have_no_common_type(first: pa.DataType, second: pa.DataType) -> None:
    assert common_type(first, second) is None and common_type(second, first) is None


def test_columns_are_read_in_the_order_asked_for_and_by_their_whole_names(tmp_path: Path) -> None:
    found = source(tmp_path, {"a.b": [1], "b": [2], "a": [{"b": 3}]}, {"a": [{"b": 6}], "a.b": [4], "b": [5]})
    assert read(found, "a").to_pylist() == [{"a": {"b": 3}}, {"a": {"b": 6}}]
    assert read(found, "b", "a.b").to_pylist() == [{"b": 2, "a.b": 1}, {"b": 5, "a.b": 4}]
    assert read(found, "b", "a.b").column_names == ["b", "a.b"]


def test_what_cannot_be_read_from_all_files_has_a_reason_and_the_rest_can_be_read(tmp_path: Path) -> None:
    twice = pa.Table.from_arrays([pa.array([1])] * 4, ["n", "twice", "twice", "three"])
    repeated = pa.StructArray.from_arrays([pa.array([1])] * 2, names=["k", "k"])
    first = twice.append_column("nested", pa.array([[]], pa.list_(repeated.type)))
    second = {"n": [2], "twice": [2], "nested": [3], "extra": [4], "three": ["x"]}
    found = source(tmp_path, first, second, {**second, "three": pa.array([1], pa.int8())})
    assert read(found, "n")["n"].to_pylist() == [1, 2, 2]
    zero, one = tmp_path / "0.parquet", tmp_path / "1.parquet"
    assert found.unusable == {
        "twice": f"occurs 2 times in {zero}; rename or remove the others",
        "nested": f"has the field 'k' twice in {zero}; rename or remove one of them",
        "three": f"is int64 in {zero}, but string in {one}; no type holds the values of both: convert one",
        "extra": f"is not in {zero}; all files need the columns that the job uses",
    }
    again = ParquetSource(str(tmp_path), found.index)
    assert (again.schema, again.unusable) == (found.schema, found.unusable)


def test_the_file_that_is_at_odds_is_named_where_the_type_comes_from_several(tmp_path: Path) -> None:
    found = source(tmp_path, {"a": pa.nulls(1)}, {"a": pa.array([1], pa.uint8())}, {"a": [2]}, {"a": ["x"]})
    assert found.unusable["a"].startswith(
        f"is uint8 in {tmp_path / '1.parquet'}, but string in {tmp_path / '3.parquet'}"
    )


def test_a_file_without_rows_needs_no_columns(tmp_path: Path) -> None:
    found = source(tmp_path, pa.table({}), {"a": [1]}, {"a": pa.array([], pa.string())})
    assert not found.unusable and read(found, "a")["a"].to_pylist() == [1]


def test_a_value_that_the_common_type_cannot_hold_is_told_with_its_file_and_column(tmp_path: Path) -> None:
    far = pa.array([253402300799], pa.timestamp("s"))
    found = source(tmp_path, {"a": far}, {"a": pa.array([0], pa.timestamp("ns"))})
    with pytest.raises(
        InputError, match=r"column a of .*0\.parquet is timestamp\[ms\] and cannot be read as timestamp\[ns\]"
    ):
        read(found, "a")


def test_files_that_are_known_already_give_the_types_of_the_whole_input(tmp_path: Path) -> None:
    first = source(tmp_path, {"a": pa.nulls(1)}, {"a": pa.array([1], pa.int8())}, {"a": [2]})
    again = ParquetSource(str(tmp_path), first.index)
    for row in range(3):
        (batch,) = again.cursor(["a"], 8).read(row, row + 1)
        assert batch.records.schema == pa.schema([("a", pa.int64())])


def test_a_recorded_file_without_a_column_is_an_error_of_the_input_and_no_missing_value(tmp_path: Path) -> None:
    found = source(tmp_path, {"a": [1]}, {"a": [2]})
    lying = ParquetSource(str(tmp_path), found.index.replace(b'"unusable":{}', b'"unusable":{"b":"is not here"}'))
    lying.schema = pa.schema([("a", pa.int64()), ("b", pa.int64())])
    with pytest.raises(InputError, match=r"0\.parquet has 0 columns b; expected one"):
        list(lying.cursor(["b"], 8).read(0, 2))
