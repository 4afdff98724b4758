"""The memory that a run takes for its rows, measured: of all its processes, with the memory files that they share."""

import threading
import time
from pathlib import Path

import psutil
from process_memory import memory_of
from stand_ins import Speed
from standing import StandingJob, make_job

ROW = 24_000_000
ROWS = 30
BUDGET = 400_000_000


def peak(job: StandingJob) -> int:
    """Run a job to its end; the most memory that it took at a time, without what it takes before it has a row.

    Of a page that several processes share, each counts its part: they are counted together with the process that they
    were all forked from, or their number alone would change the sum by hundreds of megabytes.
    """
    process = job.start()
    origin = psutil.Process(process.pid).ppid()
    samples: list[int] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.is_set():
            samples.append(memory_of(origin))
            time.sleep(0.01)

    watcher = threading.Thread(target=watch)
    watcher.start()
    process.join(60)
    ended.set()
    watcher.join()
    assert process.exitcode == 0, job.said()
    assert job.table().num_rows == ROWS
    return max(samples) - next(filter(None, samples))


def large_rows(folder: Path, memory: str) -> StandingJob:
    rows = [f"large {ROW}"] * ROWS
    # So slow an engine that without a budget, all rows are mapped before the first ones are finished.
    speed = Speed(max_num_seqs=16, step_seconds=0.15)
    return make_job(folder, rows, speed, preprocess={"workers": 4, "memory": memory})


def test_rows_of_24_mb_stay_in_the_budget_and_would_not_without_it(tmp_path: Path) -> None:
    job = large_rows(tmp_path / "small", "400 MB")
    within = peak(job)
    # Besides its rows, a process has what Python copies of its parent: some megabytes each.
    assert within < 1.25 * BUDGET, f"{within / 1e6:.0f} MB"
    (said,) = (line for line in job.said().splitlines() if line.startswith("preprocess.memory"))
    assert "400 MB hold 6 rows of 49 MB" in said and 'preprocess.memory = "1.3 GB"' in said
    large = large_rows(tmp_path / "large", "8 GB")
    assert peak(large) > 2.5 * BUDGET, "the test would not see it"
    assert "preprocess.memory" not in large.said()
