"""The headline of a report, and its counts: which numbers it tells, and of which rows they are."""

import re
import time
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import committed_jobs
import pyarrow as pa
import pytest
from pictures import encoded, picture

from run_batch.jobs.job.rows import Generation, RowFailure
from run_batch.jobs.results.shard_commits import Commit
from run_batch.jobs.watch import report_counts
from run_batch.jobs.watch.gallery import try_command
from run_batch.jobs.watch.job_folder import JobFolder
from run_batch.jobs.watch.report import write_report
from run_batch.jobs.watch.report_counts import errors, headline, times
from run_batch.jobs.watch.report_processes import WorkTime
from run_batch.jobs.watch.report_sample import SampledRow
from run_batch.jobs.watch.run_end import Run, exit_in_words
from run_batch.jobs.watch.running_rates import ProcessRun, RunningRates
from run_batch.jobs.watch.status import JobStatus

COMMITS = [
    Commit(0, 0, 10, 30, 50, {"bad": 1}, truncated=2, matching=6, mismatching=2),
    Commit(1, 0, 10, 30, 30, {"bad": 1, "worse": 1}, matching=3, mismatching=1),
]
RATES = RunningRates(
    4.0,
    [4.0, 6.0, 2.0, 8.0],
    [],
    [(1000.0, 1004.0)],
    {"engine": [1.0, 1.0, 0.0, 1.0], "input": [0.0, 0.0, 1.0, 0.0]},
    [10.0] * 4,
    [20.0, 0.0, 0.0, 20.0],
    [ProcessRun("whole job", Run("a", 900.0, 1004.0, 0), 4.0, 20)],
)
WORKED = WorkTime([(0.0, 60.0), (100.0, 130.0), (190.0, 200.0)], 7200.0, 40.0)


def status(**values: Any) -> JobStatus:
    return JobStatus("running", **{"rows": 40, "done": 20, "failed": 3, "truncated": 2, "left": 20, **values})


def told(**values: Any) -> dict[str, tuple[str, str]]:
    return {name: (value, more) for name, value, more in headline(status(**values), COMMITS, RATES, WORKED)}


def test_the_headline_tells_each_number_and_of_which_rows_it_is() -> None:
    found = told()
    assert found["done"] == ("20", "50.00% of 40; 20 left")
    assert found["failed"] == ("3", "15.00% of those done")
    assert found["as expected"] == ("75.00%", "9 of 12 rows that expect a text and did not fail")
    assert found["ended by length"] == ("2", "10.00% of those done")
    assert found["ran for"] == ("100 s", "without 2 breaks of 100 s in all")
    assert found["before the first rows"] == ("40 s", "of the 100 s that it ran: loading the model")
    assert found["waited for"] == ("engine", "in 75% of the 4 s in which it finished rows")


def test_rates_are_those_of_now_while_it_runs_and_the_average_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report_counts, "clock", lambda seconds: f"at {seconds:.0f}")
    monkeypatch.setattr(report_counts, "time", SimpleNamespace(time=lambda: 5000.0))
    now = told(rows_per_second=2.5, seconds_left=8.0)
    assert now["rows/s"] == ("2.5", "now; 5 on average")
    assert now["projected end"] == ("at 5008", "in 8 s, at the rate of now")
    later = told()
    assert later["rows/s"] == ("5", "on average while rows were finished")
    assert later["tokens/s"] == ("10", "generated, and 10 of prompts, on average")
    assert later["projected end"] == ("unknown", "no rate is known yet")
    ended = {name: value for name, value, _ in headline(JobStatus("complete"), COMMITS, RATES, WORKED)}
    assert ended["ended"] == "at 200" and "projected end" not in ended


def test_a_job_that_has_stopped_says_where_when_and_how() -> None:
    stopped = {"host": "node7", "last_seen": 1000.0, "exit_code": 74, "why": "the disk is full"}
    (_, value, more), *others = headline(JobStatus("stopped", 40, 20, left=20, **stopped), COMMITS, RATES, WORKED)
    assert value == "stopped" and re.fullmatch(
        r"host node7, [-\d]+ [:\d]+, exit code 74; .* go on with the same command; the disk is full", more
    )
    assert ("projected end", "unknown", "it is stopped") in others
    (_, value, more), *_ = headline(JobStatus("waiting", why="shares of others"), COMMITS, RATES, WORKED)
    assert (value, more) == ("waiting", "for shares of others")
    (_, value, more), *_ = headline(JobStatus("complete"), COMMITS, RATES, WORKED)
    assert (value, more) == ("complete", "")
    (_, value, more), *_ = headline(JobStatus("complete", 40, 40, failed=3), COMMITS, RATES, WORKED)
    assert (value, more) == ("complete", "but 3 rows failed")


def test_a_job_without_expected_texts_or_processes_tells_nothing_of_them() -> None:
    found = headline(status(), [Commit(0, 0, 10, 30, 50)], RunningRates(0.0, (), ()), WorkTime([], 0.0))
    assert [name for name, _, _ in found] == ["state", "done", "failed", "projected end", "ran for", "ended by length"]


def test_hours_are_those_of_all_processes_on_all_gpus_of_each(tmp_path: Path) -> None:
    engine = {"tensor_parallel_size": 2, "pipeline_parallel_size": 4}
    folder: Any = SimpleNamespace(config=SimpleNamespace(engine=engine))
    job: Any = SimpleNamespace(versions=[{"run-batch": "1"}, {"run-batch": "2"}])
    html = "".join(times(folder, job, RATES, WORKED))
    text = re.sub("<[^>]*>", " ", html)
    assert "2.0 h, each on 8 GPUs where it has GPUs" in text and "1 in all" in text
    told = re.sub(" +", " ", text)
    assert "ran for 100 s, without breaks before the first rows 40 s finishing rows 4 s" in told
    assert "run-batch 1" in text and "run-batch 2" in text
    short = "".join(times(folder, job, RATES, WorkTime([(0.0, 3.0)], 3.0)))
    assert "3 s, each on 8 GPUs" in short, "not as a part of an hour"


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The text of a page of a job of eight rows with images of several sizes."""

    def result(row: int) -> Any:
        kind = "worse" if row == 7 else "bad"
        return RowFailure(row, kind, f"why {row}") if row in (2, 3, 7) else Generation(row, ("t",), "stop", 3, row + 1)

    images = [encoded(picture(row, (30 + 10 * row, 300 - 29 * row)), "PNG") for row in range(8)]
    rows = {"id": [f"r{row}" for row in range(8)], "prompt": ["p"] * 8, "image": images}
    settings = {"input": {"path": str(tmp_path / "rows.parquet"), "id_column": "id"}, "errors": {"max_fraction": 1.0}}
    job = committed_jobs.prepared(tmp_path, rows, **settings)
    monkeypatch.setattr(committed_jobs, "result", result)
    committed_jobs.commit(job, range(8))
    return write_report(JobFolder.at(job.store.folder))[0].read_text()


def cells(page: str, part: str) -> list[str]:
    """The texts of the cells of a section."""
    section = page[page.index(f'<section id="{part}"') :].partition("</section>")[0]
    return [re.sub("<[^>]*>", "", cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", section, re.DOTALL)]


def test_the_example_of_an_error_is_a_row_of_the_page_where_one_has_it() -> None:
    shown = [
        SampledRow(5, ["failed"], {"row_id": "it's here", "error": "bad: seen"}),
        SampledRow(6, [], {"row_id": "x"}),
    ]
    read: list[int] = []

    class Store:
        def batches(self, shard: int, names: Any) -> Any:
            read.append(shard)
            yield pa.RecordBatch.from_pydict({"row_id": ["r"], "error": ["worse: unseen"]})

    store: Any = Store()
    html = "".join(errors(store, COMMITS, RATES, shown))
    found = [re.sub("<[^>]*>", "", cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", html, re.DOTALL)]
    assert found[:4] == ["bad", "2", "it&#x27;s here", "seen"] and found[5:9] == ["worse", "1", "r", "unseen"]
    assert read == [1], "an example is read where the page has none"
    commands = [unescape(text) for text in re.findall(r'class="command"><pre>(.*?)</pre>', html)]
    tried = "run-batch try --config job.toml --row "
    assert commands == [f"""{tried}'it'"'"'s here'""", f"{tried}r", "run-batch --config job.toml --retry-failed"]


@pytest.mark.parametrize(
    ("row_id", "given"),
    [
        ("a b", " 'a b'"),
        ("-1", "=-1"),
        ("$(rm x)", " '$(rm x)'"),
        ("\x1b[201~\nrm x", " ID"),
        ("\u202eab", " ID"),
        ("", " ID"),
        ("x" * 500, " ID"),
    ],
)
def test_a_command_to_paste_holds_an_id_only_as_a_word_of_the_shell(row_id: str, given: str) -> None:
    assert try_command(row_id) == f"run-batch try --config job.toml --row{given}"


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (0, "done"),
        (75, "interrupted: go on with the same command"),
        (None, "killed, or its machine went down"),
        (9, ""),
    ],
)
def test_exit_codes_have_words(code: int | None, said: str) -> None:
    assert exit_in_words(code) == said
    assert exit_in_words(-9) == "killed by SIGKILL"


def test_errors_are_counted_by_kind_with_an_example_and_how_to_try_again(page: str) -> None:
    today = time.strftime("%Y-%m-%d")
    found = cells(page, "errors")
    assert found[:4] == ["bad", "2", "r2", "why 2"] and found[5:9] == ["worse", "1", "r7", "why 7"]
    assert today in found[4]
    assert "<pre>run-batch try --config job.toml --row r2</pre>" in page and "--retry-failed</pre>" in page
    assert page.count('data-try="run-batch try --config job.toml --row r') == 3, "of the rows that failed"


def test_all_counts_stand_in_a_table(page: str) -> None:
    found = cells(page, "counts")
    counts = dict(zip(found[::2], found[1::2], strict=True))
    assert counts == {
        "rows": "8",
        "done": "8",
        "failed": "3 (37.50% of those done)",
        "left": "0",
        "ended by length": "0",
        "shards committed": "4 of 4",
        "prompt tokens": "15",
        "generated tokens": "21 (4.2 a row)",
    }


def test_the_largest_and_the_smallest_images_are_named_by_their_rows(page: str) -> None:
    found = cells(page, "images")
    assert found[:6] == ["smallest: 30 x 300", "r0", "median: 50 x 242", "r2", "largest: 70 x 184", "r4"]
    assert 'data-pixels="12880"' in page


def test_settings_are_those_of_job_toml_and_all_that_the_results_depend_on(page: str) -> None:
    found = cells(page, "settings")
    assert found[found.index("input.id_column") + 1] == "id" and found[found.index("output.rows_per_shard") + 1] == "2"
    assert found.count("input.id_column") == 2 and "<h3>All that the results depend on</h3><details>" in page
