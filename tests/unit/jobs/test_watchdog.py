"""The watchdog: what it takes for a hang, and what not."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from run_batch.jobs.machine import watchdog as module
from run_batch.jobs.machine.thread_activity import activity_of_this_thread
from run_batch.jobs.machine.watchdog import WATCHDOG, AwakeClock, Watch


@contextmanager
def added(watch: Watch) -> Iterator[None]:
    WATCHDOG.add(watch)
    try:
        yield
    finally:
        WATCHDOG.remove(watch)


def test_what_makes_no_progress_for_its_seconds_is_reported_once() -> None:
    hangs: list[float] = []
    with added(Watch(0.1, hangs.append)):
        time.sleep(0.6)
    assert len(hangs) == 1 and 0.1 < hangs[0] < 0.5


def test_progress_and_nothing_to_do_are_no_hang_and_a_second_hang_is_reported_again() -> None:
    hangs: list[float] = []
    values: list[object] = [0]
    with added(Watch(0.3, hangs.append, lambda: values[0])):
        for _ in range(10):
            values[0] = int(str(values[0])) + 1
            time.sleep(0.05)
        values[0] = None
        time.sleep(0.6)
        assert hangs == []
        values[0] = "stuck"
        time.sleep(0.6)
        values[0] = "and again"
        time.sleep(0.6)
    assert len(hangs) == 2


def test_what_a_thread_does_inside_pauses_what_is_around_it() -> None:
    outer: list[float] = []
    inner: list[float] = []
    with WATCHDOG.watching(Watch(0.2, outer.append)):
        with WATCHDOG.watching(Watch(0.0, inner.append)):
            time.sleep(0.5)
        time.sleep(0.1)
        assert outer == []
        time.sleep(0.4)
    assert len(outer) == 1 and inner == []


def test_a_process_that_was_stopped_has_not_hung_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    clock = AwakeClock()
    for seconds, expected in ((0.5, 0.5), (1.0, 1.5), (3600.0, 3.5), (1.0, 4.5)):
        now[0] += seconds
        assert clock.now() == pytest.approx(expected)


STOPPED = """
import os, time
from run_batch.jobs.machine.watchdog import WATCHDOG, Watch
WATCHDOG.add(Watch(2.5, lambda waited: os._exit(9)))
end = time.monotonic() + 2.0  # before it is stopped, whenever that is
print("ready", flush=True)
while time.monotonic() < end:
    time.sleep(0.05)
os._exit(0)
"""


def test_a_process_that_goes_on_after_a_stop_does_not_end_itself() -> None:
    process = subprocess.Popen([sys.executable, "-c", STOPPED], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    os.kill(process.pid, signal.SIGSTOP)
    time.sleep(4)
    os.kill(process.pid, signal.SIGCONT)
    assert process.wait(20) == 0


def test_a_forked_process_watches_anew() -> None:
    with added(Watch(0.0, lambda waited: None)):
        child = os.fork()
        if child == 0:
            with WATCHDOG.watching(Watch(0.1, lambda waited: os._exit(7))):
                time.sleep(20)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_a_thread_that_blocks_does_nothing_and_one_that_looks_again_and_again_does() -> None:
    activities = []
    blocked, ended = threading.Event(), threading.Event()

    def block() -> None:
        activities.append(activity_of_this_thread())
        blocked.wait()

    def look() -> None:
        activities.append(activity_of_this_thread())
        while not ended.wait(0.01):
            pass

    for run in (block, look):
        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        while not activities or (run is look and len(activities) < 2):
            time.sleep(0.01)
    time.sleep(0.1)
    first = [activity() for activity in activities]
    time.sleep(0.3)
    second = [activity() for activity in activities]
    blocked.set()
    ended.set()
    assert first[0] == second[0] and first[1] != second[1]
