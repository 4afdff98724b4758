"""What the report says of all rows, and of when things happened: sketches of shards, and the times of a job."""

import json
import re
import time
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
from run_batch.jobs.watch.report_times import curve, errors_over_time, waits
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
    assert sum(wanted == text for wanted, text, _ in sketch.pairs) == 24 and len(sketch.pairs) == 64


def test_the_most_frequent_mistake_and_the_confusion_of_classes_are_told() -> None:
    numbers = Numbers()
    wrong = [("4", 3), ("5", 1)]
    results = [generation(row, "9") for row in range(10)]
    expected = [digit for digit, count in wrong for _ in range(count)] + ["9"] * 6
    numbers.add(sketch_results((0, 0, 1.0), results, expected, []))
    html = "".join(expected_texts(numbers))
    cells = [text.partition("<")[0] for text in re.split(r'<pre dir="auto"[^>]*>', html)[1:]]
    assert cells[:8] == ["4", "9", "3", "100.0%", "5", "9", "1", "100.0%"]
    assert cells[8:] == ["4", "", "", "3", "5", "", "", "1", "9", "", "", "6"]
    many = Numbers()
    texts = [str(row) for row in range(100)]
    for shard in range(5):
        rows = range(20 * shard, 20 * shard + 20)
        shown = [generation(row, "x") for row in rows]
        many.add(sketch_results((shard, 0, 1.0), shown, [texts[row] for row in rows], []))
    assert "Rows by expected text" not in "".join(expected_texts(many)), "a table of a hundred classes"
    assert "".join(answers(many, 9)).count("100 rows, in 5 of 9 committed shards") == 1


def write_metrics(folder: Path, lines: list[tuple[float, str]]) -> None:
    texts = [json.dumps({"time": t, "seconds": 1.0, "rows_finished": 10, "bottleneck": b}) for t, b in lines]
    (folder / "metrics.jsonl").write_text("\n".join(texts) + "\n")


def test_what_held_a_job_up_is_told_with_when_and_for_how_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    stages = ["engine"] * 60 + ["input"] * 20 + ["engine"] * 20
    write_metrics(tmp_path, [(1000.0 + second, stage) for second, stage in enumerate(stages)] + [(5000.0, "mapping")])
    rates = running_rates(tmp_path)
    html = "".join(waits(rates))
    cells = [text.partition("<")[0] for text in re.split(r'<pre dir="auto"[^>]*>', html)[1:]]
    assert (
        cells[0].startswith("engine: ") and cells[1] == "79.2%" and cells[3].startswith("60 s from 1970-01-01 00:16:3")
    )
    assert (
        cells[4].startswith("input: ") and cells[5] == "19.8%" and cells[7].startswith("20 s from 1970-01-01 00:17:3")
    )
    blocks = cells[6]
    assert blocks.index("█") in (18, 19, 20) and blocks.count("·") > 20
    assert cells[-3:] == ["1970-01-01 00:18:19", "1970-01-01 01:23:19", "65.0 min"], "the break"
    kinds = errors_over_time(rates, [Commit(0, 0, 1, 0, 0, {"bad": 2}, time=1050.0)])
    assert kinds["bad"][0].index("█") in (15, 16) and kinds["bad"][1] == kinds["bad"][2] == "1970-01-01 00:17:30"


def test_values_over_time_are_drawn_in_few_columns() -> None:
    assert curve([0, 1, 4, 8]) == "·▂▅█" and len(curve(range(1000))) == 32 and curve([]) == ""


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
    assert "Processes, the last 3" in page and "no word of its end" in page
    numbers = read_numbers(job.store, {0, 1})
    assert numbers.rows == 4 and numbers.finish_reasons == {"stop": 2, "error": 2}
