"""`input.priority_column`: which of the rows that wait in the engine run first."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from job_configs import job, make_inputs

from run_batch.jobs.job.columns import check_columns, needed_columns
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.open_input import open_source
from run_batch.jobs.mapping.row_settings import row_settings

COLUMN = {"input": {"priority_column": "urgent"}}


def folder_with(folder: Path, priorities: pa.Array) -> Path:
    rows = pq.read_table(make_inputs(folder) / "rows.parquet")
    pq.write_table(rows.append_column("urgent", priorities), folder / "rows.parquet")
    return folder


def test_the_engine_schedules_by_the_numbers_of_a_column(tmp_path: Path) -> None:
    config = job(folder_with(tmp_path, pa.array([3, -1, None, 7], pa.int64())), **COLUMN)
    source = open_source(config)
    check_columns(config, source)
    assert "urgent" in needed_columns(config, source.schema)
    assert config.model_settings.by_priority and not job(tmp_path).model_settings.by_priority
    found = [row_settings({"urgent": value}, "a", {}, config).priority for value in (3, -1, None, 7)]
    assert found == [3, -1, 0, 7]
    assert row_settings({}, "a", {}, job(tmp_path)).priority == 0


@pytest.mark.parametrize("values", [pa.array(["1"] * 4), pa.array([0.5] * 4), pa.array([True] * 4)])
def test_a_column_that_holds_no_whole_numbers_is_refused(tmp_path: Path, values: pa.Array) -> None:
    config = job(folder_with(tmp_path, values), **COLUMN)
    with pytest.raises(JobError, match=f"column urgent is {values.type}; expected whole numbers"):
        check_columns(config, open_source(config))


@pytest.mark.parametrize(
    ("tables", "says"),
    [
        ({"engine": {"scheduling_policy": "priority"}}, "set input.priority_column instead"),
        ({**COLUMN, "engine": {"scheduling_policy": "fcfs"}}, "input.priority_column sets it"),
    ],
)
def test_the_policy_is_set_by_the_column_alone(tmp_path: Path, tables: dict[str, Any], says: str) -> None:
    with pytest.raises(JobError, match=says):
        job(make_inputs(tmp_path), **tables)
