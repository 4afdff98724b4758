"""Results open with no options in the libraries that people read them with, from the first committed shard on."""

import datetime
import decimal
import json
from pathlib import Path

import datasets
import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
from committed_jobs import commit, labelled, prepared

from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.prepare import prepare

datasets.disable_progress_bars()


def row_counts(folder: Path, cache: Path) -> dict[str, int]:
    """How many rows each library finds in a folder of results."""
    with_datasets = datasets.load_dataset(str(folder), cache_dir=str(cache))
    assert list(with_datasets) == ["train"]
    counted = duckdb.sql(f"SELECT count(text), count(*) FROM '{folder}/*.parquet'").fetchall()[0]
    return {
        "datasets": len(list(with_datasets["train"])),
        "pandas": len(pd.read_parquet(folder)),
        "pyarrow": pq.read_table(folder).num_rows,
        "dataset": pads.dataset(folder).count_rows(),
        "duckdb": counted[1],
        "polars": len(pl.read_parquet(f"{folder}/*.parquet")),
    }


def test_libraries_open_the_folder_from_the_first_shard_on_also_while_the_job_runs(tmp_path: Path) -> None:
    job = prepared(tmp_path, {"prompt": [f"p{i}" for i in range(7)]}, output={"columns": ["prompt"]})
    folder = job.store.folder

    def look() -> None:
        assert any((folder / ".run_batch").iterdir())
        # Spark, pyarrow and datasets skip these.
        others = [path.name for path in folder.iterdir() if not path.name.startswith(("_", "."))]
        assert others == ["part-000000.parquet"]
        assert set(row_counts(folder, tmp_path / "one").values()) == {2}

    commit(job, range(3), look)
    commit(prepare(job.config), range(2, 7))
    job.store.mark_success()
    assert set(row_counts(folder, tmp_path / "all").values()) == {7}


def test_all_shards_have_the_same_columns_and_types_whatever_is_null_in_them(tmp_path: Path) -> None:
    columns = {"prompt": ["p"] * 6, "note": pa.array([None, None, None, "x", None, None])}
    sampling = {"n": 2, "logprobs": 1}
    expected = {"expected_column": "note"}
    job = prepared(tmp_path, columns, output={"columns": ["note"]}, sampling=sampling, errors=expected)
    commit(job, range(6))
    schemas = [pq.read_schema(path).remove_metadata() for path in sorted(job.store.folder.glob("*.parquet"))]
    assert len(schemas) == 3 and len(set(schemas)) == 1
    assert set(row_counts(job.store.folder, tmp_path / "cache").values()) == {6}


@pytest.mark.parametrize("form", ["parquet", "save_to_disk"])
def test_carried_columns_keep_their_hugging_face_features(tmp_path: Path, form: str) -> None:
    rows = labelled()
    if form == "save_to_disk":
        rows.save_to_disk(str(tmp_path / "saved"))
    carried = ["image", "pages", "label", "grid"]
    job = prepared(tmp_path, rows if form == "parquet" else "saved", output={"columns": carried})
    commit(job, range(4))
    found = datasets.load_dataset(str(job.store.folder), cache_dir=str(tmp_path / "cache"))["train"]
    assert {name: found.features[name] for name in carried} == {name: rows.features[name] for name in carried}
    assert found[1]["image"].tobytes() == rows[1]["image"].tobytes() and found[1]["image"].size == (12, 10)
    assert [page.size for page in found[0]["pages"]] == [(12, 10)] * 2
    assert found.features["label"].int2str(found[1]["label"]) == "dog" and found[2]["label"] is None
    assert found[0]["grid"] == [[1, 2], [3, 4]]


def test_other_names_of_classes_are_another_job_and_no_wrong_labels(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()

    def write(name: str, names: list[str]) -> None:
        features = datasets.Features({"prompt": datasets.Value("string"), "label": datasets.ClassLabel(names=names)})
        rows = datasets.Dataset.from_dict({"prompt": ["a", "b"], "label": [0, 1]}, features=features)
        rows.to_parquet(str(tmp_path / "in" / name))

    write("1.parquet", ["cat", "dog"])
    job = prepared(tmp_path, "in", output={"columns": ["label"]})
    commit(job, range(2))
    write("2.parquet", ["dog", "cat"])
    with pytest.raises(JobError, match=r"output\.columns \(classes of label\): \[\['cat', 'dog'\]\] -> \(not set\)"):
        prepare(job.config)
    write("2.parquet", ["cat", "dog"])
    commit(prepare(job.config), range(2, 4))
    found = datasets.load_dataset(str(job.store.folder), cache_dir=str(tmp_path / "cache"))["train"]
    assert found.features["label"].names == ["cat", "dog"]


MOMENT = datetime.datetime(2020, 1, 2, 3, 4, 5)
DAY = MOMENT.date()
ODD_COLUMNS: dict[str, pa.Array] = {
    "nulls": pa.nulls(2),
    "views": pa.array(["a", "long enough to be no inline view"], pa.string_view()),
    "byte_views": pa.array([b"a", None], pa.binary_view()),
    "list_views": pa.array([["a"], None], pa.list_view(pa.string_view())),
    "large": pa.array([["a"], None], pa.large_list(pa.large_string())),
    "fixed": pa.array([[1.0, 2.0], None], pa.list_(pa.float16(), 2)),
    "half": pa.array([0.5, None], pa.float16()),
    "map": pa.array([[("a", [("b", 1)])], None], pa.map_(pa.string(), pa.map_(pa.string(), pa.int32()))),
    "struct": pa.array([{"n": None, "v": "x"}, None], pa.struct([("n", pa.null()), ("v", pa.string_view())])),
    "empty_lists": pa.array([[], None], pa.list_(pa.null())),
    "decimal": pa.array([decimal.Decimal("1.10"), None], pa.decimal32(5, 2)),
    "wide_decimal": pa.array([decimal.Decimal("1.10"), None], pa.decimal256(30, 2)),
    "date": pa.array([DAY, None], pa.date64()),
    "moment": pa.array([MOMENT, None], pa.timestamp("us", "Europe/Berlin")),
    "category": pa.array(["a", "b"]).dictionary_encode(),
    "flag": pa.ExtensionArray.from_storage(pa.bool8(), pa.array([1, None], pa.int8())),
    "uuid": pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"0" * 16, None], pa.binary(16))),
}


def test_carried_columns_of_any_type_open_everywhere_and_keep_their_values(tmp_path: Path) -> None:
    twice = {name: pa.chunked_array([column, column]) for name, column in ODD_COLUMNS.items()}
    table = pa.table({"prompt": ["p"] * 4, **twice})
    job = prepared(tmp_path, table, output={"columns": list(ODD_COLUMNS)})
    commit(job, range(4))
    assert set(row_counts(job.store.folder, tmp_path / "cache").values()) == {4}
    found = pq.read_table(job.store.folder).to_pylist()[0]
    assert (found["half"], found["fixed"], found["date"], found["flag"]) == (0.5, [1.0, 2.0], DAY, True)
    assert found["map"] == [{"key": "a", "value": [{"key": "b", "value": 1}]}]
    assert (found["views"], found["list_views"], found["struct"]) == ("a", ["a"], {"n": None, "v": "x"})
    assert found["decimal"] == found["wide_decimal"] == decimal.Decimal("1.10") and found["uuid"] == b"0" * 16


def test_a_column_that_not_all_readers_can_hold_is_refused(tmp_path: Path) -> None:
    columns = {"prompt": ["p"], "sum": pa.array([decimal.Decimal("1")], pa.decimal256(50, 2))}
    with pytest.raises(JobError, match=r"column sum is decimal256\(50, 2\), .*more than 38 digits"):
        prepared(tmp_path, columns, output={"columns": ["sum"]})


def test_damaged_metadata_of_another_writer_is_no_feature(tmp_path: Path) -> None:
    for number, content in enumerate((b"{", b"[]", json.dumps({"info": {"features": [1]}}).encode(), b"\xff")):
        table = pa.table({"prompt": ["p"]}).replace_schema_metadata({b"huggingface": content})
        job = prepared(tmp_path, table, output={"path": f"out{number}", "columns": ["prompt"]})
        commit(job, range(1))
        assert b"huggingface" not in (pq.read_schema(job.store.path(0)).metadata or {})


def test_another_compression_goes_on_with_the_same_job(tmp_path: Path) -> None:
    job = prepared(tmp_path, {"prompt": ["p"] * 4}, output={"compression": "none"})
    commit(job, range(2))
    output = job.config.output.model_copy(update={"compression": "brotli"})
    commit(prepare(job.config.model_copy(update={"output": output})), range(2, 4))
    codecs = [pq.read_metadata(job.store.path(k)).row_group(0).column(0).compression for k in range(2)]
    assert codecs == ["UNCOMPRESSED", "BROTLI"]
