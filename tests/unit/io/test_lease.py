"""Leases: one process at a time holds one, and the lease of a dead process is taken over by exactly one other."""

import json
import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import pytest

from run_batch.io.coordination import lease as lease_module
from run_batch.io.coordination.lease import Lease, LeaseHeldError, LeaseLost, check_stale
from run_batch.io.coordination.process_identity import this_process


def write_lease(folder: Path, number: int = 1, **changes: object) -> Path:
    path = folder / f"lease-all.{number}"
    path.write_text(json.dumps({**asdict(this_process()), **changes}))
    return path


def age(path: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_a_second_run_is_told_who_holds_the_folder(tmp_path: Path) -> None:
    lease = Lease(tmp_path, "all")
    assert lease.take() is None
    with pytest.raises(LeaseHeldError, match=rf"host {this_process().host}, process {os.getpid()}, since 2\d\d\d-"):
        Lease(tmp_path, "all").take()
    Lease(tmp_path, "share-1-of-2").take()
    lease.release()
    Lease(tmp_path, "all").take()


def test_the_lease_of_a_dead_process_of_this_machine_is_taken_over_at_once(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    process.wait()
    path = write_lease(tmp_path, pid=process.pid, started="1")
    dead = Lease(tmp_path, "all").take()
    assert dead is not None and dead.pid == process.pid and not path.exists()


def test_another_process_with_the_id_of_the_holder_is_not_the_holder(tmp_path: Path) -> None:
    write_lease(tmp_path, started="1")
    assert Lease(tmp_path, "all").take() is not None


def test_a_holder_on_another_machine_is_believed_alive_until_its_lease_is_stale(tmp_path: Path) -> None:
    path = write_lease(tmp_path, host="far", machine="another", pid=1)
    age(path, 40)
    with pytest.raises(LeaseHeldError, match=r"host far, process 1, .* can be taken over in (19|20) s"):
        Lease(tmp_path, "all").take()
    age(path, 61)
    dead = Lease(tmp_path, "all").take()
    assert dead is not None and dead.host == "far"


def test_a_lease_that_its_process_did_not_live_to_write_becomes_stale_in_seconds(tmp_path: Path) -> None:
    path = tmp_path / "lease-all.3"
    path.touch()
    with pytest.raises(LeaseHeldError, match="a process that is starting"):
        check_stale(path)
    age(path, 4.5)
    before = time.monotonic()
    Lease(tmp_path, "all").take()
    assert 0.2 < time.monotonic() - before < 3, "the next run waits for a lease without a name, instead of failing"
    assert [p.name for p in tmp_path.iterdir()] == ["lease-all.4"]


def test_a_holder_touches_its_lease_and_learns_that_it_was_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "REFRESH_SECONDS", 0.05)
    lease = Lease(tmp_path, "all")
    lease.take()
    age(tmp_path / "lease-all.1", 300)
    time.sleep(0.3)
    assert time.time() - (tmp_path / "lease-all.1").stat().st_mtime < 5
    lease.check()
    write_lease(tmp_path, 2, host="other")
    time.sleep(0.3)
    with pytest.raises(LeaseLost, match="another run has taken over: host other"):
        lease.check()
    lease.release()
    assert (tmp_path / "lease-all.2").exists()


def test_a_holder_learns_that_its_folder_was_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease_module, "REFRESH_SECONDS", 0.05)
    (tmp_path / "f").mkdir()
    lease = Lease(tmp_path / "f", "all")
    lease.take()
    (tmp_path / "f" / "lease-all.1").unlink()
    (tmp_path / "f").rmdir()
    time.sleep(0.3)
    with pytest.raises(LeaseLost, match="no longer exists"):
        lease.check()


def test_of_many_takers_of_a_stale_lease_exactly_one_wins(tmp_path: Path) -> None:
    def take(lease: Lease) -> bool:
        try:
            lease.take()
            return True
        except LeaseHeldError:
            return False

    for attempt in range(30):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        write_lease(folder, started="1")
        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(take, [Lease(folder, "all") for _ in range(8)]))
        assert sum(won) == 1


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_process_that_was_slow_to_create_its_lease_yields_to_a_later_one(
    tmp_path: Path, just_before_creating: Callable[[str, Callable[[], None]], None]
) -> None:
    later, slow = Lease(tmp_path, "all"), Lease(tmp_path, "all")

    def others() -> None:
        write_lease(tmp_path, 1, started="1")
        later.take()

    just_before_creating("lease-all.1", others)
    with pytest.raises(LeaseHeldError):
        slow.take()
    assert files(tmp_path) == ["lease-all.2"]
    later.check()


def test_a_process_that_was_slow_to_take_over_yields_to_one_that_started_from_1_again(
    tmp_path: Path, just_before_creating: Callable[[str, Callable[[], None]], None]
) -> None:
    write_lease(tmp_path, 1, started="1")
    quick, later, slow = (Lease(tmp_path, "all") for _ in range(3))

    def others() -> None:
        quick.take()
        quick.release()
        later.take()

    just_before_creating("lease-all.2", others)
    with pytest.raises(LeaseHeldError, match="it is running"):
        slow.take()
    assert files(tmp_path) == ["lease-all.1"]
    later.check()


def test_a_process_that_was_slow_to_write_its_lease_yields_to_one_that_created_the_same_name_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick, later, slow = (Lease(tmp_path, "all") for _ in range(3))
    write, writes = os.write, []

    def write_late(descriptor: int, content: bytes) -> int:
        writes.append(content)
        if len(writes) == 1:
            age(tmp_path / "lease-all.1", 300)
            quick.take()
            assert files(tmp_path) == ["lease-all.2"]
            quick.release()
            later.take()
        return write(descriptor, content)

    monkeypatch.setattr(os, "write", write_late)
    with pytest.raises(LeaseHeldError, match="it is running"):
        slow.take()
    assert files(tmp_path) == ["lease-all.1"]
    later.check()


def _take_and_say(folder: Path, wins: "multiprocessing.Queue[int]") -> None:
    for _ in range(40):
        lease = Lease(folder, "all")
        try:
            lease.take()
        except LeaseHeldError:
            continue
        inside = folder / "inside"
        descriptor = os.open(inside, os.O_CREAT | os.O_EXCL)  # fails if another process is inside
        os.close(descriptor)
        time.sleep(0.001)
        inside.unlink()
        lease.release()
        wins.put(1)


def test_taking_and_releasing_by_many_processes_never_lets_two_in(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    wins = context.Queue()
    takers = [context.Process(target=_take_and_say, args=(tmp_path, wins)) for _ in range(4)]
    for taker in takers:
        taker.start()
    for taker in takers:
        taker.join()
    assert [taker.exitcode for taker in takers] == [0] * 4
    assert wins.get(timeout=1) == 1


def test_a_lease_that_was_lost_unnoticed_is_not_released_for_another_process(tmp_path: Path) -> None:
    slow = Lease(tmp_path, "all")
    slow.take()
    (tmp_path / "lease-all.1").unlink()  # taken over as stale, and released since
    third = Lease(tmp_path, "all")
    third.take()
    slow.release()
    assert (tmp_path / "lease-all.1").exists()
    third.release()
    assert not (tmp_path / "lease-all.1").exists()
