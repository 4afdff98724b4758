"""`output.columns`: some columns, all of them, or a table that renames; what that is to a job that has begun."""

from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from committed_jobs import PICTURES, commit, labelled, prepared

from run_batch.jobs.job.config import JobConfig
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.prepare import PreparedJob, prepare

COLUMNS = {"prompt": ["p"] * 4, "text": ["in0", "in1", "in2", "in3"], "n": [0, 1, 2, 3]}


def carrying(job: PreparedJob, columns: Any) -> JobConfig:
    """A job's configuration with other `output.columns`."""
    return job.config.model_copy(update={"output": job.config.output.model_copy(update={"columns": columns})})


def carried(job: PreparedJob) -> dict[str, list[Any]]:
    commit(job, range(4))
    table = pq.read_table(job.store.folder)
    own = ("row_id", "text", "finish_reason", "prompt_tokens", "generated_tokens", "error")
    return {name: table[name].to_pylist() for name in table.column_names if name not in own}


def test_a_star_carries_all_columns_and_is_the_same_job_as_their_names(tmp_path: Path) -> None:
    columns = {name: values for name, values in COLUMNS.items() if name != "text"}
    job = prepared(tmp_path, columns, output={"columns": ["*"]})
    assert carried(job) == columns
    prepare(carrying(job, ["prompt", "n"]))
    with pytest.raises(JobError, match=r"Changed: output\.columns: \['prompt', 'n'\] -> \['prompt'\]"):
        prepare(carrying(job, ["prompt"]))


def test_a_table_carries_columns_under_other_names(tmp_path: Path) -> None:
    job = prepared(tmp_path, COLUMNS, output={"columns": {"text": "input_text", "n": "n"}})
    assert carried(job) == {"input_text": COLUMNS["text"], "n": COLUMNS["n"]}
    assert pq.read_table(job.store.folder)["text"].to_pylist() == ["t0", "t1", None, None]
    with pytest.raises(JobError, match=r"output\.columns: .*'input_text'.* -> .*'asked'"):
        prepare(carrying(job, {"text": "asked", "n": "n"}))


def test_a_star_in_a_table_carries_all_that_it_does_not_rename(tmp_path: Path) -> None:
    job = prepared(tmp_path, COLUMNS, output={"columns": {"*": "*", "text": "input_text"}})
    assert carried(job) == {"input_text": COLUMNS["text"], "prompt": COLUMNS["prompt"], "n": COLUMNS["n"]}


def test_renamed_columns_keep_their_features(tmp_path: Path) -> None:
    renamed = {"image": "picture", "pages": "scans", "label": "kind"}
    job = prepared(tmp_path, labelled(), output={"columns": renamed})
    commit(job, range(4))
    found = datasets.load_dataset(str(job.store.folder), cache_dir=str(tmp_path / "cache"))["train"]
    assert {new: found.features[new] for new in renamed.values()} == {
        new: labelled().features[old] for old, new in renamed.items()
    }
    assert found[3]["picture"].size == found[3]["scans"][0].size == (12, 10) and len(PICTURES) == 4


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        (["*"], 'text is the name of a result column; rename it: .* { "\\*" = "\\*", "text" = "input_text" }'),
        (["n", "text"], 'a result column; rename it: .* { "n" = "n", "text" = "input_text" }'),
        ({"n": "Error"}, "Error differs from the result column error in upper and lower case alone"),
        ({"n": "x", "prompt": "x"}, "two columns would be called x"),
        ({"n": "x", "prompt": "X"}, "X differs from column x"),
        ({"nope": "x"}, "output.columns names column 'nope'"),
        (["*", "n"], 'output.columns = .* expected "\\*" alone'),
        (["n", "n"], "expected each column once"),
        ({"n": 1}, "expected a list of strings"),
        ({"n": ""}, "expected a list of strings"),
        ({"*": "all"}, 'expected "\\*" = "\\*" for all'),
        ("n", "expected a list of strings"),
    ],
)
def test_columns_that_cannot_be_carried_are_refused_with_the_way_out(tmp_path: Path, columns: Any, said: str) -> None:
    with pytest.raises(JobError, match=said):
        prepared(tmp_path, COLUMNS, output={"columns": columns})


def test_a_job_that_carries_all_columns_goes_on_only_with_files_that_have_them(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"prompt": ["p"] * 2, "n": [1, 2]}), tmp_path / "in" / "1.parquet")
    job = prepared(tmp_path, "in", output={"columns": ["*"]})
    commit(job, range(2))
    later = tmp_path / "in" / "2.parquet"
    pq.write_table(pa.table({"prompt": ["p"] * 2}), later)
    with pytest.raises(JobError, match=r"column n is not in .*2\.parquet"):
        prepare(job.config)
    pq.write_table(pa.table({"prompt": ["p"] * 2, "n": [3, 4], "new": [5, 6]}), later)
    with pytest.raises(JobError, match=r"column new is not in .*1\.parquet.*name the columns to carry"):
        prepare(job.config)
    named = prepare(carrying(job, ["prompt", "n"]))
    commit(named, range(2, 4))
    assert pq.read_table(job.store.folder)["n"].to_pylist() == [1, 2, 3, 4]
