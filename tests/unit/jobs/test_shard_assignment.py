"""Which shards a process gets: each once, none that another one works on, and all that a dead one has left."""

import itertools
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest

from run_batch.io.coordination.claims import Claims
from run_batch.io.coordination.lease import Lease
from run_batch.io.outputs.shards import ShardStore
from run_batch.jobs.job.plan import Plan
from run_batch.jobs.job.shares import WHOLE_JOB, Share
from run_batch.jobs.job.work import Work
from run_batch.jobs.results.shard_commits import Commit, CommittedShards, footer_of
from run_batch.jobs.runner import shard_assignment
from run_batch.jobs.runner.shard_assignment import ShardAssignment, next_work
from run_batch.jobs.runner.work_stealing import shards_to_steal

PLAN = Plan(80, 10)


class Process:
    """What a process of a share has of its own."""

    def __init__(self, folder: Path, share: Share) -> None:
        self.share, self.store = share, ShardStore(folder, share.folder)
        self.store.create()
        self.lease = Lease(self.store.own_folder, share.label)
        self.lease.take()
        self.claims = Claims(self.store.run_folder, self.lease)
        self.committed = CommittedShards(self.store, PLAN, share.shards(PLAN))

    def next_work(self) -> Work | None:
        return next_work(self.committed, self.share, self.store, self.claims)

    def assignment(self, work: Work) -> ShardAssignment:
        return ShardAssignment(work, self.share, self.store, self.claims)

    def shards(self, work: Work) -> Iterator[int]:
        assignment = self.assignment(work)
        return itertools.chain(assignment.own(), assignment.stolen())

    def commit(self, shard: int) -> None:
        rows = len(PLAN.rows(shard))
        self.store.commit(shard, pa.table({"n": range(rows)}), footer_of(Commit(shard, 0, rows, 0, 0)))
        self.claims.release(shard)


@pytest.fixture
def halves(tmp_path: Path) -> Iterator[list[Process]]:
    """Two shares of four shards each, both running."""
    processes = [Process(tmp_path / "out", Share(index, 2)) for index in range(2)]
    yield processes
    for process in processes:
        process.lease.release()


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shard_assignment, "LOOK_SECONDS", 0.01)


def test_a_share_does_its_own_shards_and_then_half_of_what_another_has_not_begun(halves: list[Process]) -> None:
    first, second = halves
    assert second.claims.take(4)
    work = first.next_work()
    assert work is not None and list(work.shards) == [0, 1, 2, 3]
    assignment = first.assignment(work)
    given = []
    for shard in itertools.chain(assignment.own(), assignment.stolen()):
        given.append(shard)
        first.commit(shard)
    assert given[:4] == [0, 1, 2, 3] and 4 not in given
    assert given[4:6] == [6, 7], "it takes what the other one comes to last, and reads it forwards"
    assert (assignment.rows_assigned, assignment.rows_stolen) == (10 * len(given), 10 * len(given[4:]))


def test_a_recovered_shard_that_is_committed_before_its_turn_counts_as_assigned(halves: list[Process]) -> None:
    first, _ = halves
    work = first.next_work()
    assert work is not None and first.claims.take(2)
    assignment = ShardAssignment(work, first.share, first.store, first.claims, {2})
    own = assignment.own()
    assert next(own) == 0
    first.commit(2)  # all of its rows were in a journal
    assert list(own) == [1, 2, 3] and assignment.rows_assigned == 40


def test_a_helper_takes_half_of_the_longest_run_from_where_a_row_group_begins(tmp_path: Path) -> None:
    ours, others = (Process(tmp_path / "out", Share(index, 2)) for index in range(2))
    assert others.claims.take(50)
    for begins, taken in (((), range(65, 80)), ((0, 63), range(63, 80)), ((0, 60), range(65, 80))):
        plan = Plan(800, 10, tuple(range(begin, begin + 1) for begin in begins))
        assert shards_to_steal(ours.store, plan, ours.share) == taken


def test_a_shard_that_is_claimed_or_committed_meanwhile_is_given_to_nobody_else(halves: list[Process]) -> None:
    first, second = halves
    work = first.next_work()
    assert work is not None
    assert second.claims.take(1)
    second.commit(2)
    assert [shard for shard in first.shards(work) if shard < 4] == [0, 3]


def test_a_share_waits_while_others_work_on_all_that_it_misses(tmp_path: Path) -> None:
    ours, others = Process(tmp_path / "out", Share(0, 2)), Process(tmp_path / "out", Share(1, 4))
    for shard in range(4):
        assert others.claims.take(shard)
    for shard in range(4, 8):
        others.commit(shard)
    found: list[Work | None] = []
    thread = threading.Thread(target=lambda: found.append(ours.next_work()))
    thread.start()
    time.sleep(0.3)
    assert thread.is_alive() and not found, (
        "it went on, or ended, while its shards were in the hands of another process"
    )
    for shard in (0, 1, 2):
        others.commit(shard)
    others.claims.release(3)  # it ends without having committed it
    thread.join(timeout=10)
    assert found[0] is not None and list(found[0].shards) == [3]
    ours.commit(3)
    assert ours.next_work() is None


def test_a_share_that_was_never_started_keeps_its_shards(tmp_path: Path) -> None:
    alone = Process(tmp_path / "out", Share(0, 2))
    work = alone.next_work()
    assert work is not None
    given = []
    for shard in alone.shards(work):
        given.append(shard)
        alone.commit(shard)
    assert given == [0, 1, 2, 3] and alone.next_work() is None


def test_a_run_of_the_whole_job_gets_every_shard_once(tmp_path: Path) -> None:
    whole = Process(tmp_path / "out", WHOLE_JOB)
    work = whole.next_work()
    assert work is not None
    assert list(whole.shards(work)) == list(range(8))
