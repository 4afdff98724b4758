"""Class labels of Hugging Face data sets stand in prompts by their names."""

from collections.abc import Callable
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest
from committed_jobs import commit, prepared
from job_configs import job, make_inputs

from run_batch.jobs.job.columns import value_types
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.open_input import open_source
from run_batch.jobs.job.prompt_template import parse_template

FEATURES = datasets.Features(
    {
        "prompt": datasets.Value("string"),
        "label": datasets.ClassLabel(names=["cat", "dog"]),
        "inner": {"kind": datasets.ClassLabel(names=["small", "large"])},
    }
)
ROWS = {"prompt": ["a", "b", "c"], "label": [0, 1, -1], "inner": [{"kind": 1}, {"kind": 0}, {"kind": None}]}
WRITERS: dict[str, Callable[[datasets.Dataset, Path], object]] = {
    "parquet": lambda rows, folder: rows.to_parquet(folder / "in.parquet"),
    "saved": lambda rows, folder: rows.save_to_disk(folder / "in.saved"),
    "arrow": lambda rows, folder: rows.save_to_disk(folder / "in.saved"),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_field_of_a_class_label_is_filled_with_the_name_of_the_class(tmp_path: Path, kind: str) -> None:
    WRITERS[kind](datasets.Dataset.from_dict(ROWS, FEATURES), tmp_path)
    path = {"parquet": "in.parquet", "saved": "in.saved", "arrow": "in.saved/*.arrow"}[kind]
    config = job(make_inputs(tmp_path), input={"path": path, "image_column": ""}, prompt={"template": "{label:>4}"})
    source = open_source(config)
    template = parse_template("{label:>4} {inner.kind}", "prompt", source.schema)
    columns = ["label", "inner"]
    (batch,) = source.cursor(columns, 10).read(0, 3)
    first, second, third = batch.records.to_pylist()
    assert "".join(text for text, _ in template.fill(first)) == " cat large"
    assert "".join(text for text, _ in template.fill(second)) == " dog small"
    with pytest.raises(ValueError, match="column label is -1, which is no class"):
        template.fill(third)
    with pytest.raises(JobError, match="the format does not fit"):
        parse_template("{label:02d}", "prompt", source.schema)
    assert value_types(config, source.schema)["input.path (classes of label)"] == "cat, dog"


def test_a_text_is_as_expected_where_it_is_the_name_of_the_class(tmp_path: Path) -> None:
    features = datasets.Features({"prompt": datasets.Value("string"), "label": datasets.ClassLabel(names=["t1", "t0"])})
    rows = datasets.Dataset.from_dict({"prompt": ["a", "b"], "label": [1, 1]}, features)
    finished = prepared(tmp_path, rows, errors={"expected_column": "label", "max_fraction": 1.0})
    commit(finished, range(2))  # with the texts t0 and t1
    table = pq.read_table(finished.store.folder / "part-000000.parquet")
    assert table["matches_expected"].to_pylist() == [True, False]
    assert value_types(finished.config, finished.source.schema)["input.path (classes of label)"] == "t1, t0"
