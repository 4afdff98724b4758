"""What the report says of all rows, and of when things happened: sketches of shards, and the times of a job."""

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import committed_jobs
import pytest

from run_batch.io.outputs.shards import ShardStore
from run_batch.jobs.job.rows import Generation, RowFailure
from run_batch.jobs.results.shard_commits import Commit
from run_batch.jobs.results.shard_sketch import read_sketches, record_sketch, sketch_results
from run_batch.jobs.watch.job_folder import JobFolder
from run_batch.jobs.watch.report import write_report
from run_batch.jobs.watch.report_answers import answers, expected_texts
from run_batch.jobs.watch.report_numbers import Numbers, read_numbers
from run_batch.jobs.watch.report_processes import breaks, processes, work_time
from run_batch.jobs.watch.report_times import curve, errors_over_time, speed
from run_batch.jobs.watch.run_end import Run, read_runs
from run_batch.jobs.watch.running_rates import running_rates


def generation(row: int, text: str, tokens: int = 1) -> Generation:
    return Generation(row, (text,), "stop", 3, tokens)


@pytest.fixture
def store(tmp_path: Path) -> ShardStore:
    store = ShardStore(tmp_path)
    store.create()
    return store


def test_a_shard_is_sketched_by_its_own_rows_and_the_latest_sketch_counts(store: ShardStore) -> None:
    results = [generation(0, "9", 5), generation(1, "9", 1), generation(2, " "), RowFailure(3, "bad", "why")]
    sketch = sketch_results((0, 0, 1.0), results, ["4", "9", None, "9"], [(2.5, 1)])
    assert (sketch.finish_reasons, sketch.empty, sketch.repeated) == ({"stop": 3, "error": 1}, 1, [("9", 2)])
    assert sorted(sketch.pairs) == [("4", "9", 1), ("9", "9", 1)] and sketch.longest == [(5, 0), (1, 2)]
    assert sketch.prompt_bits == {2: 3} and sketch.answer_bits == {3: 1, 1: 2}
    record_sketch(store, sketch)
    with open(store.own_folder / "sketches.jsonl", "ab") as file:
        file.write(b'{"shard": 0, "att\n')  # torn
    again = sketch_results((0, 1, 0.5), [generation(0, "4")] * 2, None, [])
    record_sketch(store, again)
    assert list(read_sketches(store, {0})) == [again] and not list(read_sketches(store, {1}))


def test_a_line_is_short_whatever_is_in_the_shard(store: ShardStore) -> None:
    results = [generation(row, f"{row} " * 1000) for row in range(2000)]
    expected = [f"{row + row % 2} " * 1000 for row in range(2000)]
    sketch = sketch_results((0, 0, 1.0), results, expected, [])
    record_sketch(store, sketch)
    assert (store.own_folder / "sketches.jsonl").stat().st_size < 8000
    assert sum(wanted == text for wanted, text, _ in sketch.pairs) == 24 and len(sketch.pairs) > 50


def cells_of(html: str) -> list[str]:
    """The texts of the cells of tables, in their order."""
    return [re.sub("<[^>]*>", "", cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", html)]


def test_the_most_frequent_mistake_and_the_confusion_of_classes_are_told() -> None:
    numbers = Numbers()
    wrong = [("4", 3), ("5", 1)]
    results = [generation(row, "9") for row in range(10)]
    expected = [digit for digit, count in wrong for _ in range(count)] + ["9"] * 6
    numbers.add(sketch_results((0, 0, 1.0), results, expected, []))
    mistakes, confusion = expected_texts(numbers, 10)
    assert cells_of(mistakes) == ["4", "9", "3", "100.0%", "5", "9", "1", "100.0%"]
    assert re.findall(r"<th [^>]*>([^<]*)", confusion) == ["expected", "4", "5", "9", "rows", "as expected"]
    four, five, nine = (
        ["4", "", "", "3", "3", "0.0%"],
        ["5", "", "", "1", "1", "0.0%"],
        ["9", "", "", "6", "6", "100.0%"],
    )
    assert cells_of(confusion) == [*four, *five, *nine]
    assert re.findall(r"<td class=(\w+)><pre[^>]*>(\d+)<", confusion) == [("heat4", "3"), ("heat2", "1"), ("same", "6")]
    assert "Of 10 rows that expect a text" in mistakes and "not counted" not in mistakes


def test_all_mistakes_of_ten_classes_are_counted() -> None:
    numbers = Numbers()
    for shard in range(2):
        expected = [str(row // 11) for row in range(110)]
        results = [generation(row, str(row % 11 % 10)) for row in range(110)]  # each class is answered in ten ways
        numbers.add(sketch_results((shard, 0, 1.0), results, expected, []))
    mistakes, confusion = expected_texts(numbers, 220)
    cells = cells_of(confusion)
    lines = [cells[start : start + 13] for start in range(0, len(cells), 13)]
    assert lines[0] == ["0", "4", *["2"] * 9, "22", "18.2%"] and lines[9] == ["9", "4", *["2"] * 9, "22", "9.1%"]
    assert "not counted" not in mistakes


def test_parts_of_classes_are_told_only_where_all_rows_are_counted() -> None:
    numbers = Numbers()
    numbers.add(sketch_results((0, 0, 1.0), [generation(0, "9"), generation(1, "4")], ["4", "9"], []))
    mistakes, confusion = expected_texts(numbers, 3)  # the sketch of another shard is lost
    assert cells_of(mistakes) == ["4", "9", "1", "", "9", "4", "1", ""]
    assert cells_of(confusion) == ["4", "", "1", "9", "1", ""]
    assert "1 with an answer that is rare" in mistakes


def test_long_texts_that_begin_alike_are_neither_equal_nor_repeated() -> None:
    long = "x" * 50
    results = [generation(0, f"{long}b"), generation(1, long), generation(2, f"{long}c"), generation(3, long)]
    sketch = sketch_results((0, 0, 1.0), results, [f"{long}a", long, None, None], [])
    (repeated,) = sketch.repeated
    assert repeated[0].startswith("x" * 40 + "… #") and repeated[1] == 2
    assert sorted(wanted == text for wanted, text, _ in sketch.pairs) == [False, True]
    other = sketch_results((1, 0, 1.0), [generation(4, f"{long}b")] * 2, None, [])
    numbers = Numbers()
    for each in (sketch, other):
        numbers.add(each)
    assert sorted(numbers.repeated.values()) == [2, 2]


def test_mistakes_of_many_expected_texts_have_no_table_of_all_pairs() -> None:
    many = Numbers()
    texts = [str(row) for row in range(100)]
    for shard in range(5):
        rows = range(20 * shard, 20 * shard + 20)
        shown = [generation(row, "x") for row in rows]
        many.add(sketch_results((shard, 0, 1.0), shown, [texts[row] for row in rows], []))
    (mistakes, confusion) = expected_texts(many, 103)
    assert "x" in cells_of(mistakes) and not confusion, "a table of a hundred classes"
    assert "3 with an answer that is rare in their shard are not counted here" in mistakes


def test_answers_are_told_by_how_often_they_are_repeated_how_they_ended_and_their_tokens() -> None:
    numbers = Numbers()
    for shard in range(2):
        texts = ["yes"] * 3 + ["no"] * 2 + [" "] * 2 + ["once"]
        results: list[Any] = [generation(row, text, 1 + row) for row, text in enumerate(texts)]
        results += [RowFailure(8, "bad", "why"), Generation(9, ("cut",), "length", 3, 100)]
        numbers.add(sketch_results((shard, 0, 1.0), results, None, []))
    html = "".join(answers(numbers, 9))
    assert html.count("20 rows, in 2 of 9 committed shards") == 1
    endings = ["stop", "16", "80.00%", "error", "2", "10.00%", "length", "2", "10.00%"]
    repeated = ["(empty)", "4", "20.00%", "yes", "6", "30.00%", "no", "4", "20.00%"]
    assert "No answer is repeated" not in html
    assert cells_of(html) == [*endings, *repeated], "answers of one row are repeated by none"
    bars = re.findall(r"<title>([-\d,]+): (\d+) rows</title>", html)
    generated = [("1", "2"), ("2-3", "4"), ("4-7", "8"), ("8-15", "2"), ("16-31", "0"), ("32-63", "0"), ("64-127", "2")]
    assert bars == [*generated, ("2-3", "18")]


def test_that_no_answer_is_empty_or_repeated_is_told() -> None:
    numbers = Numbers()
    numbers.add(sketch_results((0, 0, 1.0), [generation(0, "a"), generation(1, "b")], None, []))
    html = "".join(answers(numbers, 1))
    assert cells_of(html) == ["stop", "2", "100.00%", "(empty)", "0", "0.00%"]
    assert "No answer is repeated in its shard." in html


def test_the_longest_and_the_slowest_rows_are_those_of_all_shards() -> None:
    numbers = Numbers()
    for shard in range(30):
        results = [generation(10 * shard + row, "x", 100 + (7 * shard) % 30 - 50 * row) for row in range(3)]
        numbers.add(sketch_results((shard, 0, 1.0), results, None, [(0.5 * ((11 * shard) % 30), 10 * shard)]))
    assert [tokens for tokens, _ in numbers.longest] == list(range(129, 113, -1)) and numbers.longest[0] == (129, 170)
    assert [seconds for seconds, _ in numbers.slowest] == [0.5 * place for place in range(29, 13, -1)]
    assert numbers.slowest[0] == (14.5, 190)


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
