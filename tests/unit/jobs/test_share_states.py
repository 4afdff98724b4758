"""The states that `status` tells of a job: whether it loads, runs, waits, has stopped, where, when and how."""

import json
import os
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import committed_jobs
import pytest

from run_batch.io.coordination.lease import Lease
from run_batch.io.outputs.shards import ShardStore
from run_batch.jobs.job.errors import Interrupted, JobError, MayPassError, RunError
from run_batch.jobs.job.shares import Share
from run_batch.jobs.runner.share_lease import engines_lease, output_folder, share_lease
from run_batch.jobs.watch.job_folder import JobFolder
from run_batch.jobs.watch.run_end import note_end
from run_batch.jobs.watch.status import JobStatus, folder_status


@pytest.fixture
def job(tmp_path: Path) -> Any:
    return committed_jobs.prepared(tmp_path, {"prompt": list("abcdef")})


def status(job: Any) -> JobStatus:
    return folder_status(JobFolder.at(job.store.folder))


def part(job: Any, index: int) -> Any:
    share = Share(index, 2)
    return replace(job, share=share, store=ShardStore(job.store.folder, share.folder))


def text(found: JobStatus) -> str:
    return found.as_text().partition("\n")[0]


@pytest.mark.parametrize(
    ("error", "code"),
    [(Interrupted(), 75), (RunError("no space left"), 1), (MayPassError("no route"), 74), (ValueError("a bug"), 1)],
)
def test_a_job_that_has_stopped_says_where_when_and_with_which_exit_code(job: Any, error: Any, code: int) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(type(error)):
        committed_jobs.commit(job, range(4), fail)
    found = status(job)
    assert (found.state, found.host, found.exit_code, found.why) == ("stopped", socket.gethostname(), code, str(error))
    assert found.last_seen is not None and abs(found.last_seen - time.time()) < 60
    when = time.strftime("%Y-%m-%d", time.localtime(found.last_seen))
    assert text(found).startswith(f"stopped (host {socket.gethostname()}, {when} ")
    assert f", exit code {code}): 4 of 6 rows done" in text(found)
    assert str(error) in found.as_text()


def test_a_process_that_was_killed_left_no_exit_code_not_that_of_the_one_before(job: Any) -> None:
    committed_jobs.commit(job, range(2))
    assert status(job).exit_code == 0
    with output_folder(job.store), share_lease(job.store, job.share):
        assert not (job.store.own_folder / "end.json").exists()
        (job.store.own_folder / "progress.json").unlink()
        assert status(job).state == "loading"
    (job.store.own_folder / "end.json").unlink()  # a process that is killed writes none
    (job.store.own_folder / "lease-all.1").write_text("{}")
    os.utime(job.store.own_folder / "lease-all.1", (time.time() - 100,) * 2)
    assert (status(job).state, status(job).exit_code) == ("stopped", None)
    assert "killed: it left no exit code" in text(status(job))


def test_a_job_that_is_refused_leaves_no_end(job: Any) -> None:
    with pytest.raises(JobError), output_folder(job.store), share_lease(job.store, job.share):
        raise JobError("no such model")
    assert not job.store.folder.exists()


@pytest.mark.parametrize(
    ("change", "state", "said"),
    [
        (lambda file, record: record, "running", "running: "),
        (lambda file, record: record | {"waiting_for": "input.path x"}, "waiting", "waiting for input.path x: "),
        (lambda file, record: os.utime(file, (time.time() - 45,) * 2), "waiting", "waiting for its engine or its "),
        (lambda file, record: record | {"running": False}, "loading", "loading: "),
    ],
)
def test_a_process_that_is_there_runs_waits_or_loads_by_its_own_progress(
    job: Any, change: Callable[[Path, Any], Any], state: str, said: str
) -> None:
    def look() -> None:
        file = job.store.own_folder / "progress.json"
        changed = change(file, json.loads(file.read_text()))
        if changed is not None:
            file.write_text(json.dumps(changed))
        found = status(job)
        assert found.state == state and text(found).startswith(said), found.as_text()
        assert found.done == 4, "rows in no committed shard count in every state"

    committed_jobs.commit(job, range(4), look)


def test_a_share_whose_engine_was_given_up_waits_for_another_engine(job: Any) -> None:
    first, second = part(job, 0), part(job, 1)
    committed_jobs.commit(first, range(2))
    with engines_lease(job.store, job.share):
        second.store.create()
        note_end(second.store.own_folder, -9, "killed by SIGKILL")
        lent = Lease(second.store.own_folder, second.share.label)
        lent.take()
        found = status(job).shares[1]
        lent.release()
        restarted = status(job).shares[1]
        (second.store.own_folder / "end.json").unlink()
    assert (found.state, found.exit_code) == ("waiting", None)
    assert "waiting for another engine; its own has died: killed by SIGKILL, 0 of " in found.as_text()
    assert restarted.state == "stopped" and "killed by SIGKILL), 0 of " in restarted.as_text()


def test_a_job_whose_engines_are_being_started_loads(job: Any) -> None:
    committed_jobs.commit(part(job, 0), range(2))
    with engines_lease(job.store, job.share):
        assert status(job).state == "loading"
        (lease,) = job.store.run_folder.glob("lease-engines.*")
        holder = json.loads(lease.read_text())
        lease.write_text(json.dumps(holder | {"machine": "another", "host": "node17"}))
        assert status(job).state == "loading"
        os.utime(lease, (time.time() - 100,) * 2)
        assert status(job).state == "stopped", "a machine that has gone down"
    assert status(job).state == "stopped"


def test_a_share_that_is_done_but_for_what_others_have_taken_waits_for_them(job: Any) -> None:
    committed_jobs.commit(part(job, 0), range(2))
    found: list[JobStatus] = []
    (job.store.folder / "part-000000.parquet").unlink()
    committed_jobs.commit(part(job, 1), range(4, 6), lambda: found.append(status(job)))
    assert [share.state for share in found[0].shares] == ["waiting", "running"]
    assert status(job).shares[0].state == "stopped"
