"""What the report says of when things happened: what held a job up, its processes and its breaks."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import committed_jobs
import pytest
from report_pages import cells_of

from run_batch.jobs.results.shard_commits import Commit
from run_batch.jobs.watch.job_folder import JobFolder
from run_batch.jobs.watch.report import write_report
from run_batch.jobs.watch.report_numbers import read_numbers
from run_batch.jobs.watch.report_processes import breaks, processes, work_time
from run_batch.jobs.watch.report_times import curve, errors_over_time, speed
from run_batch.jobs.watch.run_end import Run, read_runs
from run_batch.jobs.watch.running_rates import running_rates


def write_metrics(folder: Path, lines: list[tuple[float, str]]) -> None:
    texts = [json.dumps({"time": t, "seconds": 1.0, "rows_finished": 10, "bottleneck": b}) for t, b in lines]
    (folder / "metrics.jsonl").write_text("\n".join(texts) + "\n")


@pytest.fixture
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def test_what_held_a_job_up_is_told_with_when_and_for_how_long(tmp_path: Path, utc: None) -> None:
    stages = ["engine"] * 60 + ["input"] * 20 + ["engine"] * 20
    write_metrics(tmp_path, [(1000.0 + second, stage) for second, stage in enumerate(stages)] + [(5000.0, "mapping")])
    rates = running_rates(tmp_path)
    html = "".join(speed(rates, work_time(rates)))
    engine, reading, mapping = (cells_of(html)[start : start + 3] for start in (0, 3, 6))
    assert engine[0].startswith("engine: ") and engine[1] == "79.2%"
    assert engine[2].startswith("60 s from 1970-01-01 00:16:3")
    assert reading[0].startswith("input: ") and reading[1] == "19.8%"
    assert reading[2].startswith("20 s from 1970-01-01 00:17:3")
    at_no_time = "another stage was always waited for more"
    assert mapping[:2] == ["mapping: the worker processes: images and prompts", "1.0%"] and mapping[2] != at_no_time
    times = re.findall(r"<text [^>]*>([-\d ]*\d\d:\d\d:\d\d)</text>", html)
    assert times[:4] == ["1970-01-01 00:16:39", "01:23:20", "00:17:19", "00:17:44"], (
        "40 and 65 seconds of running later"
    )
    assert "65.0 min in 1 gap, of 65.0 min at most" in html and "In 65.0 min of that, nobody ran the job" in html
    commits = [Commit(shard, 0, 1, 0, 0, {"worse": 1}, time=1000.0 + 90 * shard % 60) for shard in range(3)]
    commits[1] = Commit(1, 0, 1, 0, 0, {"worse": 1}, time=4999.5)
    kinds = errors_over_time(rates, [*commits, Commit(3, 0, 1, 0, 0, {"bad": 2}, time=1050.0)])
    assert kinds["worse"].endswith("\n1970-01-01 00:16:40 to 01:23:19")
    drawn, when = kinds["bad"].split("\n")
    assert len(drawn) == 16 and drawn.index("█") in (7, 8) and when == "1970-01-01 00:17:30"
    strip = re.findall(r'<rect class="(engine|input|mapping)" x="([\d.]+)"[^>]*height="([\d.]+)"/>', html)
    _legend, *parts = [float(x) for stage, x, _ in strip if stage == "input"]
    assert len(parts) in (20, 21) and min(parts) == pytest.approx(460 * 0.6, abs=5), "which is drawn where it was"


def test_stages_that_are_waited_for_at_the_same_time_share_the_height_of_the_chart(tmp_path: Path) -> None:
    for share, stages in (("0-of-3", ["engine"]), ("1-of-3", ["engine"]), ("2-of-3", ["mapping"])):
        folder = tmp_path / "shares" / share
        folder.mkdir(parents=True)
        write_metrics(folder, [(1000.0 + second, stages[0]) for second in range(10)])
    rates = running_rates(tmp_path)
    html = "".join(speed(rates, work_time(rates)))
    drawn = re.findall(r'<rect class="(engine|mapping)" x="[\d.]+" y="[\d.]+" width="46.0" height="([\d.]+)"/>', html)
    assert drawn == [("mapping", "9.3"), ("engine", "18.7")] * 10


def noted(folder: Path, host: str, began: float, ended: float | None, code: int | None = None) -> None:
    with open(folder / "runs.jsonl", "a") as file:
        file.write(json.dumps({"host": host, "began": began}) + "\n")
        if ended is not None:
            file.write(json.dumps({"host": host, "began": began, "ended": ended, "exit_code": code}) + "\n")


def test_the_time_of_a_job_is_that_of_its_processes_without_breaks_counted_once(tmp_path: Path, utc: None) -> None:
    for share, host in (("0-of-2", "a"), ("1-of-2", "b")):
        folder = tmp_path / "shares" / share
        folder.mkdir(parents=True)
        write_metrics(folder, [(time, "engine") for time in (1101.0, 1102.0, 5041.0)])
        noted(folder, host, 1000.0, 1200.0, 75)
        noted(folder, f"{host}2", 5000.0, None)
    worked = work_time(rates := running_rates(tmp_path))
    assert worked.seconds_before_rows == 100 + 40, "from the begin of a run on, of its processes together"
    living = {"0-of-2": "running", "1-of-2": "loading"}
    lines = cells_of("".join(processes(rates, 2, living, 60)))[-12:]
    assert [lines[1:3], lines[7:9]] == [["still running", ""], ["still running: it loads", ""]]
    assert lines[0] == "1970-01-01 01:23:20" and lines[6] == "01:23:20", "a date is told once"
    dead = "".join(processes(rates, 2, {}, 55))
    assert cells_of(dead)[-11:-9] == ["01:24:01 or later", "killed, or its machine went down"]
    assert "killed may tell nothing" in dead and "5 of these rows were generated twice" in dead
    for rows in (processes(rates, 2, living, 60), processes(rates, 2, {}, 60)):
        assert "generated twice" not in "".join(rows)
    noted(folder, "b3", 6000.0, 6001.0, 0)
    assert "killed may tell nothing" in "".join(processes(running_rates(tmp_path), 2, living, 60))
    assert worked.seconds == 200 + 41 and worked.process_seconds == 2 * 241, "a killed one to its last line"
    assert worked.breaks == [(1200.0, 5000.0)], "while a model loads there is a process"
    assert cells_of("".join(breaks(worked))) == ["1970-01-01 00:20:00", "01:23:20", "63.3 min"]
    assert [(run.label, run.run.host, run.rows) for run in rates.processes] == [
        *(("0-of-2", "a", 20), ("1-of-2", "b", 20)),
        *(("0-of-2", "a2", 10), ("1-of-2", "b2", 10)),
    ]


def test_the_slowest_host_and_share_stand_first_and_no_row_counts_twice(tmp_path: Path, utc: None) -> None:
    for index, (host, seconds) in enumerate((("fast", 10), ("slow", 40), ("fast", 10))):
        folder = tmp_path / "shares" / f"{index}-of-3"
        folder.mkdir(parents=True)
        noted(folder, host, 1000.0, 1050.0, 0)
        lines = [{"time": 1001.0 + i, "seconds": 1.0, "rows_finished": 200 // seconds} for i in range(seconds)]
        tokens = {"generated_tokens": 30, "prompt_tokens": 70}
        (folder / "metrics.jsonl").write_text("".join(json.dumps({**line, **tokens}) + "\n" for line in lines))
    cells = cells_of("".join(processes(running_rates(tmp_path), 64, {}, 600)))
    # Two processes of a host side by side are as fast as both together.
    hosts = [["slow", "40 s", "200", "5.0", "30", "70"], ["fast", "10 s", "400", "40.0", "60", "140"]]
    assert [cells[:6], cells[6:12]] == hosts
    assert cells[12:19] == ["1-of-3", "slow", "40 s", "200", "5.0", "30", "70"]
    assert cells[19:21] == ["0-of-3", "fast"]
    assert cells[33:39] == ["1970-01-01 00:16:40", "00:17:30", "0: done", "200", "fast", "0-of-3"]
    (few,) = [text for text in processes(running_rates(tmp_path), 1, {}, 600) if "By share" in text]
    assert "the slowest first, 1 of 3" in few


def test_rows_and_tokens_of_a_line_are_spread_over_its_own_seconds(tmp_path: Path) -> None:
    lines = [(1004.0, 4.0, 40, 400, 800), (1005.0, 1.0, 10, 100, 200), (1006.0, 1.0, 0, 0, 0)]
    names = ("time", "seconds", "rows_finished", "generated_tokens", "prompt_tokens")
    texts = [json.dumps(dict(zip(names, line, strict=True))) for line in lines]
    (tmp_path / "metrics.jsonl").write_text("\n".join(texts) + "\n")
    rates = running_rates(tmp_path)
    assert rates.rates == pytest.approx([10] * 5 + [0])
    assert rates.generated_tokens == pytest.approx([100] * 5 + [0])
    assert rates.prompt_tokens == pytest.approx([200] * 5 + [0])
    html = "".join(speed(rates, work_time(rates)))
    for told in ("rows/s over time: 8.3 on average, 10 at most", "generated tokens/s over time: 83.3 on average, 100"):
        assert told in html


def test_values_over_time_are_drawn_in_few_columns() -> None:
    assert curve([0, 1, 4, 8]) == "·▂▅█" and len(curve(range(1000))) == 16 and curve([]) == ""


def test_a_report_tells_of_each_process_that_a_job_has_had(tmp_path: Path) -> None:
    job: Any = committed_jobs.prepared(tmp_path, {"prompt": list("abcdef")})
    for rows in (range(0), range(2), range(2, 4)):  # the job is recorded by the first one
        committed_jobs.commit(job, rows)
    runs = read_runs(job.store.run_folder / "runs.jsonl")
    assert [run.exit_code for run in runs] == [0, 0] and all(run.ended is not None for run in runs)
    with open(job.store.run_folder / "runs.jsonl", "ab") as file:
        file.write(b'{"host": "gone", "began": 1.0}\n')
    assert read_runs(job.store.run_folder / "runs.jsonl")[-1] == Run("gone", 1.0)
    page = write_report(JobFolder.at(job.store.folder))[0].read_text()
    assert "Processes, the last 3 of 3" in page and "killed, or its machine went down" in page
    numbers = read_numbers(job.store, {0, 1})
    assert numbers.rows == 4 and numbers.finish_reasons == {"stop": 2, "error": 2}
