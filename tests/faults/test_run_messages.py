"""What a run says on standard error before its first row and at its end, where that is a file."""

import os
import re
import signal
import termios
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from running_engines import TWO
from stand_ins import Setting
from standing import StandingJob, make_job, wait_for_rows

import jobs

ROWS = 120
BAD = 5
PROMPTS = ["bad" if row < BAD else f"prompt {row}" for row in range(ROWS)]


@pytest.fixture
def job(tmp_path: Path) -> StandingJob:
    made = make_job(tmp_path, PROMPTS, engine={"max_model_len": 256}, output={"rows_per_shard": 20})
    return replace(made, setting=Setting(quiet=False))


def lines_of(said: str) -> list[str]:
    return said.splitlines()


def test_a_run_says_what_it_does_until_its_first_row_and_what_it_leaves(job: StandingJob) -> None:
    code, said = job.run()
    assert code == 0
    plan, loading, loaded, first, *_, failed, where, summary = sorted(
        lines_of(said), key=lambda line: " rows done, " in line
    )
    assert plan == f"{ROWS} rows in 6 shards; results in {job.store}"
    assert loading.startswith("loading the model ") and "max_model_len = 256" in loading
    assert "enforce_eager = true" in loading and loading.endswith("..., 1 worker process")
    assert re.fullmatch(r"model loaded in \d+\.\d s; up to \d+ rows run at once", loaded)
    assert re.fullmatch(r"first row after \d+\.\d s", first)
    assert failed == f"failed: {BAD} bad_row"
    assert where == f"to look at the results: run-batch report {job.store}"
    assert summary.startswith(f"{ROWS} of {ROWS} rows done, {BAD} failed")


def test_a_run_that_resumes_says_what_is_done_already(job: StandingJob) -> None:
    process = job.start()
    wait_for_rows(job, 50)
    os.kill(process.pid or 0, signal.SIGTERM)
    process.join(10)
    assert process.exitcode == 75
    code, said = job.run()
    assert code == 0
    found = re.search(rf"{ROWS} rows in 6 shards; (\d+) are done already, (\d+) are left; ", said)
    assert found is not None, said
    done, left = map(int, found.groups())
    assert done >= 40 and done + left == ROWS and f"this run: {left} rows" in said, said


def test_a_share_says_which_part_of_the_job_it_is(job: StandingJob) -> None:
    _, said = replace(job, setting=replace(job.setting, share=(1, 3))).run()
    assert f"share 1-of-3 of {ROWS} rows: 40 rows in 2 shards; results in " in said, said


def test_a_retry_says_how_many_rows_it_generates_again(job: StandingJob) -> None:
    assert job.run()[0] == 0
    again = replace(job, setting=replace(job.setting, retry_failed=True))
    assert f"{BAD} of {ROWS} rows in 6 shards have failed and are generated again; " in again.run()[1]


def test_several_engines_say_it_once(job: StandingJob) -> None:
    code, said = replace(job, setting=replace(TWO, quiet=False)).run()
    assert code == 0
    for once in ("loading the model ", "model loaded in ", "first row after ", "run-batch report ", "2 engines"):
        assert said.count(once) == 1, said


@pytest.mark.parametrize("setting", [Setting(quiet=False), replace(TWO, quiet=False)], ids=["one", "two"])
def test_rows_without_an_image_are_counted(job: StandingJob, setting: Setting) -> None:
    assert "without an image" not in replace(job, setting=setting).run()[1], "a job without an image column"
    folder = job.config.parent
    rows = pq.read_table(folder / "rows.parquet")
    pq.write_table(rows.append_column("image", pa.nulls(ROWS, pa.binary())), folder / "rows.parquet")
    tables = {"input": {"image_column": "image"}, "prompt": {"template": "{prompt}"}, "output": {"path": "other"}}
    jobs.write_job(folder, None, preprocess={"workers": 1}, errors={"max_fraction": 1.0}, **tables)
    code, said = replace(job, setting=setting).run()
    assert code == 0 and said.count(f"asked by their text alone: {ROWS - BAD} rows of this run") == 1, said


def test_a_quiet_run_says_nothing_but_its_summary(job: StandingJob) -> None:
    code, said = replace(job, setting=Setting(quiet=True)).run()
    assert code == 0 and len(lines_of(said)) == 1 and " rows done, " in said


@pytest.mark.parametrize("setting", [Setting(quiet=False), replace(TWO, quiet=False)], ids=["one", "two"])
def test_the_bar_of_a_terminal_stands_at_all_rows_in_the_end(job: StandingJob, setting: Setting) -> None:
    ours, theirs = os.openpty()
    termios.tcsetwinsize(theirs, (24, 60))
    job.output.symlink_to(os.ttyname(theirs))
    process = replace(job, setting=setting).start()
    shown = b""
    while b"run-batch report" not in shown:
        shown += os.read(ours, 10_000)
    process.join(30)
    os.close(ours)
    os.close(theirs)
    bars = [line for line in re.split(r"[\r\n]+", shown.decode()) if f"/{ROWS}" in line]
    assert process.exitcode == 0 and bars[-1].startswith(f"{ROWS}/{ROWS}") and f"{BAD} failed" in bars[-1], bars
    assert all(len(line) <= 60 for line in bars), bars
