"""Jobs over each format of input: killed, resumed, cut into shares, grown by files; every value as it was written."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from stand_ins import Speed
from standing import StandingJob, kill_group, make_job, wait_for_rows

PER_SHARD = 20


def write_jsonl(path: Path, numbers: range) -> None:
    lines = (json.dumps({"uid": f"{n:05d}", "prompt": f"prompt {n}", "tags": [n]}) for n in numbers)
    path.with_suffix(".jsonl").write_text("\n\n".join(lines) + "\n")


def write_csv(path: Path, numbers: range) -> None:
    with open(path.with_suffix(".csv"), "w", newline="") as file:
        csv.writer(file).writerows(
            [("uid", "prompt", "tags"), *((f"{n:05d}", f"prompt {n}", "a,\nb") for n in numbers)]
        )


FORMATS: dict[str, Callable[[Path, range], None]] = {"jsonl": write_jsonl, "csv": write_csv}


@pytest.fixture(params=FORMATS)
def write(request: pytest.FixtureRequest) -> Callable[[Path, range], None]:
    return FORMATS[request.param]


def make(folder: Path, speed: Speed) -> StandingJob:
    tables = {
        "input": {"path": "in", "image_column": "", "id_column": "uid"},
        "output": {"rows_per_shard": PER_SHARD, "columns": ["prompt"]},
    }
    job = make_job(folder, ["unused"], speed, **tables)
    (folder / "in").mkdir()
    return job


def check(job: StandingJob, rows: int) -> None:
    assert job.is_complete(), job.said()
    found = job.table()
    assert found["row_id"].to_pylist() == [f"{n:05d}" for n in range(rows)]
    assert found["prompt"].to_pylist() == [f"prompt {n}" for n in range(rows)]
    assert found["text"].to_pylist() == [f"text of prompt {n}" for n in range(rows)]


def test_a_job_is_killed_grows_and_ends_in_shares_as_if_it_had_run_once(
    tmp_path: Path, write: Callable[[Path, range], None]
) -> None:
    job = make(tmp_path, Speed(step_seconds=0.01))
    for start in range(0, 120, 60):
        write(tmp_path / "in" / f"{start:04d}", range(start, start + 60))
    process = job.start()
    wait_for_rows(job, 30)
    kill_group(process)
    assert job.run()[0] == 0, job.said()
    check(job, 120)
    write(tmp_path / "in" / "0120", range(120, 250))
    processes = [job.share(index, 3).start() for index in range(3)]
    for process in processes:
        process.join(60)
    check(job, 250)
    generated = job.generated()
    assert len(generated) < 250 + 20 and set(generated) == set(range(250)), "rows are generated again"
    write(tmp_path / "in" / "0000", range(1, 61))
    code, said = job.run()
    assert code == 2 and "has other content now" in said, said
