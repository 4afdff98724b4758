"""Claims: one process at a time has a shard, and what dead processes had is free."""

import contextlib
import json
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from run_batch.io.coordination.claims import Claims, claimed
from run_batch.io.coordination.lease import Lease
from run_batch.io.coordination.process_identity import this_process

_barrier: Barrier


@contextlib.contextmanager
def process(folder: Path, name: str) -> Iterator[Claims]:
    """As if by a process of its own."""
    lease = Lease(folder, name)
    lease.take()
    yield Claims(folder, lease)
    lease.release()


def test_a_shard_is_claimed_once_and_can_be_claimed_again_once_released(tmp_path: Path) -> None:
    with process(tmp_path, "a") as ours, process(tmp_path, "b") as theirs:
        assert ours.take(3) and ours.take(3) and not theirs.take(3) and theirs.take(4)
        assert not theirs.is_free(3) and theirs.is_free(5)
        assert claimed(tmp_path) == {3, 4}
        ours.release(3)
        assert theirs.is_free(3) and theirs.take(3)
        theirs.release_all()
        assert claimed(tmp_path) == set()


def test_what_a_dead_process_has_claimed_is_free(tmp_path: Path) -> None:
    with process(tmp_path, "a") as dead:
        assert dead.take(3)
    with process(tmp_path, "a") as successor, process(tmp_path, "b") as other:
        assert other.is_free(3) and other.take(3)
        assert not successor.take(3), "it has the name of the dead process, and is another"
        other.release(3)
        assert claimed(tmp_path) == set(), "the dead one's claim is left behind"


def test_a_process_on_another_machine_counts_as_dead_once_its_lease_is_stale(tmp_path: Path) -> None:
    elsewhere = replace(this_process(), host="node17", machine="another", pid=1)
    (tmp_path / "lease-a.1").write_text(json.dumps(asdict(elsewhere)))
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "3.0").write_text(json.dumps({"lease": "lease-a.1", "holder": asdict(elsewhere)}))
    with process(tmp_path, "b") as ours:
        assert not ours.take(3)
    os.utime(tmp_path / "lease-a.1", (time.time() - 300,) * 2)
    with process(tmp_path, "b") as ours:
        assert ours.take(3)


@pytest.mark.parametrize("content", [b"", b'{"lease"', b'{"lease": "lease-b.1", "holder": null}\0\0\1\x80\5'])
def test_a_claim_that_is_not_whole_or_damaged_becomes_stale(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "3.0").write_bytes(content)
    with process(tmp_path, "a") as ours:
        assert not ours.take(3)
        os.utime(tmp_path / "claims" / "3.0", (time.time() - 300,) * 2)
        assert ours.take(3)


def test_the_claims_of_dead_processes_are_removed_and_those_of_live_ones_stay(tmp_path: Path) -> None:
    with process(tmp_path, "dead") as dead:
        assert dead.take(3) and dead.take(4)
    with process(tmp_path, "live") as live, process(tmp_path, "complete") as ours:
        assert live.take(4) and live.take(5)
        ours.remove_dead()
        # Were the dead one below it removed, a third process could claim 4 again.
        assert sorted(path.name for path in (tmp_path / "claims").iterdir()) == ["4.0", "4.1", "5.0"]


def test_a_process_that_lost_its_lease_leaves_its_claim_below_that_of_its_successor(tmp_path: Path) -> None:
    with process(tmp_path, "a") as slow:
        assert slow.take(3)
        (tmp_path / "lease-a.1").unlink()
        with process(tmp_path, "b") as successor, process(tmp_path, "c") as third:
            assert successor.take(3)
            slow.release_all()
            assert not third.take(3)


def test_a_full_disk_leaves_no_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    with process(tmp_path, "a") as ours:
        ours.take(1)
        with monkeypatch.context() as patched, pytest.raises(OSError, match="No space left"):
            patched.setattr(os, "write", full)
            ours.take(3)
        assert claimed(tmp_path) == {1} and ours.take(3)


def test_a_shard_that_is_claimed_anew_while_a_slow_process_takes_it_over_has_one_owner(
    tmp_path: Path, just_before_creating: Callable[[str, Callable[[], None]], None]
) -> None:
    with process(tmp_path, "dead") as dead:
        dead.take(3)
    with process(tmp_path, "slow") as slow, process(tmp_path, "quick") as quick, process(tmp_path, "later") as later:

        def others() -> None:
            quick.take(3)
            quick.release(3)
            assert later.take(3)

        just_before_creating("3.1", others)
        assert not slow.take(3)
        assert later.take(3)
        assert [path.name for path in (tmp_path / "claims").iterdir()] == ["3.0"]


def test_a_shard_that_is_taken_over_and_released_while_a_slow_process_takes_it_over_has_one_owner(
    tmp_path: Path, just_before_creating: Callable[[str, Callable[[], None]], None]
) -> None:
    with process(tmp_path, "dead") as dead:
        dead.take(3)
    with process(tmp_path, "slow") as slow, process(tmp_path, "quick") as quick, process(tmp_path, "later") as later:

        def others() -> None:
            quick.take(3)
            quick.release(3)

        just_before_creating("3.1", others)
        assert slow.take(3)
        assert not later.take(3), "it made a claim of the number that the slow one had gone past"
        assert [path.name for path in (tmp_path / "claims").iterdir()] == ["3.0"]


def _meet_at(barrier: Barrier) -> None:
    global _barrier
    _barrier = barrier


def _claim_all(folder: Path, name: str, shards: int) -> list[int]:
    with process(folder, name) as claims:
        _barrier.wait()
        taken = [shard for shard in range(shards) if claims.take(shard)]
        _barrier.wait()  # what a dead process has claimed is free: none may end before all have claimed
        return taken


def test_processes_that_want_the_same_shards_share_them_out(tmp_path: Path) -> None:
    with process(tmp_path, "dead") as dead:
        for shard in range(0, 300, 2):
            dead.take(shard)
    arguments = [(tmp_path, f"p{i}", 300) for i in range(4)]
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(4, context, _meet_at, (context.Barrier(4, timeout=60),)) as pool:
        taken = list(pool.map(_claim_all, *zip(*arguments, strict=True)))
    assert sorted(shard for shards in taken for shard in shards) == list(range(300))
