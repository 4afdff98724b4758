"""What `status` counts, and the state that it tells of each combination of leases, progress and ends."""

import itertools
import json
import os
import time
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import committed_jobs
import pytest

from run_batch.io.coordination.process_identity import this_process
from run_batch.io.outputs.shards import ShardStore
from run_batch.jobs.job.rows import Generation, RowFailure, RowResult
from run_batch.jobs.job.shares import Share
from run_batch.jobs.runner.job_completion import complete_job
from run_batch.jobs.runner.share_lease import engines_lease
from run_batch.jobs.watch import watching
from run_batch.jobs.watch.job_folder import JobFolder
from run_batch.jobs.watch.progress import Progress
from run_batch.jobs.watch.run_end import note_end
from run_batch.jobs.watch.status import JobStatus, folder_status

# As a job is in the state of the share that comes first here.
STATES = ("running", "loading", "waiting", "stalled", "stopped")


@pytest.fixture
def job(tmp_path: Path) -> Any:
    return committed_jobs.prepared(tmp_path, {"prompt": list("abcdef")})


def status(job: Any) -> JobStatus:
    return folder_status(JobFolder.at(job.store.folder))


def part(job: Any, index: int, count: int = 2) -> Any:
    share = Share(index, count)
    return replace(job, share=share, store=ShardStore(job.store.folder, share.folder))


def begin(job: Any) -> Any:
    """Record a job of which nobody has done anything."""
    job.store.create()
    job.write_record()
    return job


def lease(job: Any, age: float = 0.0, text: str | None = None, **changes: Any) -> Path:
    """A lease of this process, or of one that differs from it, that was touched so many seconds ago."""
    job.store.create()
    file: Path = job.store.own_folder / f"lease-{job.share.label}.1"
    file.write_text(json.dumps(asdict(this_process()) | changes) if text is None else text)
    os.utime(file, (time.time() - age,) * 2)
    return file


def progress(job: Any, **changes: Any) -> None:
    """Progress of this process, or of one that differs from it."""
    file = job.store.own_folder / "progress.json"
    Progress(6, 0, 0, 0, file, "writer", quiet=True).write()
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def put(job: Any, state: str) -> None:
    """Bring a share into a state."""
    lease(job, age=100 if state == "stalled" else 0, **({"started": "0"} if state == "stopped" else {}))
    if state in ("running", "waiting"):
        progress(job, waiting_for="copies" if state == "waiting" else "")


@pytest.mark.parametrize("later", STATES)
@pytest.mark.parametrize("first", STATES)
def test_of_two_shares_the_job_is_in_the_state_that_comes_first(job: Any, first: str, later: str) -> None:
    begin(job)
    for index, state in enumerate((first, later)):
        put(part(job, index), state)
    found = status(job)
    assert [share.state for share in found.shares] == [first, later]
    assert found.state == min(first, later, key=STATES.index)


def test_a_process_that_was_killed_has_stopped_at_once_without_an_exit_code(job: Any) -> None:
    lease(begin(job), started="0")
    progress(job)
    assert (status(job).state, status(job).exit_code) == ("stopped", None)


def test_a_process_of_another_machine_runs_until_it_gives_no_sign_of_life(job: Any) -> None:
    lease(begin(job), machine="another", host="node17")
    progress(job, holder=asdict(this_process()) | {"machine": "another"})
    assert status(job).state == "running"
    lease(job, age=100, machine="another", host="node17")
    found = status(job)
    assert (found.state, found.host) == ("stalled", "node17")
    assert found.silent_seconds is not None
    assert found.as_text().startswith(f"stalled: no sign of life from node17 for {found.silent_seconds:.0f} s: 0 of 6 ")


def test_progress_of_an_earlier_process_is_none_of_the_one_that_loads(job: Any) -> None:
    lease(begin(job))
    progress(job, holder=asdict(this_process()) | {"started": "0"}, rows_per_second=7.0)
    found = status(job)
    assert (found.state, found.rows_per_second) == ("loading", 0.0)


@pytest.mark.parametrize(("age", "state"), [(0, "loading"), (100, "stopped")])
def test_a_process_that_has_not_written_its_name_yet_loads_unless_it_never_will(job: Any, age: int, state: str) -> None:
    lease(begin(job), age, text="")
    assert status(job).state == state


def test_a_share_whose_engine_is_started_again_loads_while_its_starter_lives(job: Any) -> None:
    first = part(begin(job), 0)
    first.store.create()
    progress(first)
    with engines_lease(job.store, job.share):
        assert status(job).shares[0].state == "loading"
        (file,) = job.store.run_folder.glob("lease-engines.*")
        file.write_text(json.dumps(json.loads(file.read_text()) | {"started": "0"}))
        assert (status(job).shares[0].state, status(job).state) == ("stopped", "stopped")


def test_a_job_is_complete_with_all_shards_and_success_and_names_what_is_gone_since(job: Any) -> None:
    assert status(begin(job)).state == "not started"
    committed_jobs.commit(job, range(6))
    assert (status(job).state, status(job).shards_done) == ("stopped", 3)
    complete_job(job, again=False)
    assert (status(job).state, status(job).missing) == ("complete", [])
    (job.store.folder / "part-000001.parquet").unlink()
    assert (status(job).state, status(job).missing) == ("stopped", ["part-000001.parquet"])
    assert "part-000001.parquet is missing, although the job was complete" in status(job).as_text()


def test_a_job_with_rows_whose_processes_have_left_no_trace_has_stopped(job: Any) -> None:
    committed_jobs.commit(job, range(2))
    for file in ("end.json", "progress.json"):
        (job.store.own_folder / file).unlink()
    assert status(job).state == "stopped"


def with_lengths(row: int) -> RowResult:
    """Rows 2 and 3 fail, rows 1 and 4 end by length."""
    if row in (2, 3):
        return RowFailure(row, "bad", "why")
    return Generation(row, ("t",), "length" if row in (1, 4) else "stop", 3, 1)


@pytest.mark.parametrize(
    ("rows", "opened", "counts"),
    [(3, [1, 1, 1, 0, 0], (6, 3, 1, 1, 3, 3, 1)), (5, [2, 1, 0, 1, 0], (6, 5, 2, 2, 1, 3, 2))],
    ids=["a failed one", "a cut one"],
)
def test_rows_in_committed_shards_and_in_none_are_counted_while_it_runs_and_after_a_kill(
    job: Any, rows: int, opened: list[int], counts: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committed_jobs, "result", with_lengths)
    found: list[JobStatus] = []

    def look() -> None:
        writer = json.loads((job.store.own_folder / "progress.json").read_text())["writer"]
        progress(job, writer=writer, open_shards=[opened])
        found.append(status(job))

    committed_jobs.commit(job, range(rows), look)
    (job.store.own_folder / "end.json").unlink()
    lease(job, started="0")
    found.append(status(job))
    assert [one.state for one in found] == ["running", "stopped"]
    for one in found:
        assert (one.rows, one.done, one.failed, one.truncated, one.left, one.shards, one.shards_done) == counts
        assert f"{counts[1]} of 6 rows done, {counts[2]} failed, {counts[4]} left\n" in one.as_text()
        assert f"\nended by length: {counts[3]} rows" in one.as_text()


def test_rows_that_are_committed_under_a_later_plan_are_none_of_the_one_that_is_looked_at(job: Any) -> None:
    committed_jobs.commit(job, range(6))
    (plan,) = job.store.run_folder.glob("plan-*.json")
    plan.write_text(json.dumps(json.loads(plan.read_text()) | {"rows": 5}))
    found = status(job)
    assert (found.rows, found.done, found.left, found.shards_done) == (5, 5, 0, 3)


def test_the_rate_the_time_left_and_the_bottleneck_are_those_of_the_processes_that_run(job: Any) -> None:
    begin(job)
    for index, (rate, bottleneck) in enumerate([(2.0, "mapping"), (1.0, "engine"), (1.5, "mapping")]):
        share = part(job, index, 4)
        lease(share)
        progress(share, rows_per_second=rate, bottleneck=bottleneck)
    lease(part(job, 3, 4), started="0")
    progress(part(job, 3, 4), rows_per_second=100.0, bottleneck="output")
    found = status(job)
    assert (found.rows_per_second, found.seconds_left, found.bottleneck) == (4.5, 6 / 4.5, "mapping")
    text = found.as_text()
    assert "\n4.5 rows/s, about 1.3 s left\nbottleneck: mapping\n" in text
    assert "share 1-of-4: running, 0 of 2 rows committed, 1.0 rows/s on " in text


def test_of_a_job_that_was_cut_into_other_shares_the_last_ones_are_told(job: Any) -> None:
    begin(job)
    for count, age in ((2, 50), (3, 10)):
        lease(part(job, 0, count), age, started="0")
    assert [share.share for share in status(job).shares] == ["0-of-3", "1-of-3", "2-of-3"]


def test_a_share_that_nobody_has_begun_is_not_started(job: Any) -> None:
    put(part(begin(job), 1), "running")
    assert [share.state for share in status(job).shares] == ["not started", "running"]


def test_watching_goes_on_while_anything_works_and_ends_a_minute_after(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = itertools.count(step=25)
    clock = SimpleNamespace(monotonic=lambda: float(next(seconds)), sleep=lambda _: None)
    monkeypatch.setattr(watching, "time", clock)
    states = [*["loading"] * 5, *["waiting"] * 5, *["running"] * 5, *["stopped"] * 9]
    seen: list[str] = []

    def look() -> JobStatus:
        seen.append(states[len(seen)])
        return JobStatus(seen[-1])

    assert watching.watch_job(look).state == "stopped"
    assert 16 < len(seen) < 20, seen


@pytest.mark.parametrize("what", ["left no trace", "ended by an error", "helps others"])
def test_a_share_that_is_done_is_complete_unless_it_runs(job: Any, what: str) -> None:
    first, second = part(job, 0), part(job, 1)
    committed_jobs.commit(first, range(2))
    for file in ("end.json", "progress.json"):
        (first.store.own_folder / file).unlink()
    if what == "ended by an error":
        note_end(first.store.own_folder, 1, "no space")
    if what == "helps others":
        put(first, "running")
    put(second, "stopped")
    found = status(job).shares
    assert [share.state for share in found] == ["running" if what == "helps others" else "complete", "stopped"]
    assert [(share.rows, share.done, share.left) for share in found] == [(2, 2, 0), (4, 0, 4)]


@pytest.mark.parametrize(
    ("code", "others", "state"), [(0, True, "waiting"), (0, False, "stopped"), (1, True, "stopped")]
)
def test_a_share_that_ended_waits_only_if_it_ended_well_and_others_run(
    job: Any, code: int, others: bool, state: str
) -> None:
    first, second = part(begin(job), 0), part(job, 1)
    first.store.create()
    note_end(first.store.own_folder, code)
    put(second, "running" if others else "stopped")
    assert status(job).shares[0].state == state
