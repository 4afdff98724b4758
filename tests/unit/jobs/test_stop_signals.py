"""What a run does about the signals that ask it to stop; tests/faults/test_stopping.py shows it on whole runs."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from run_batch.jobs.job.errors import EXIT_INTERRUPTED, Interrupted
from run_batch.jobs.machine.stop_signals import StopRequest

NUMBERS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in NUMBERS}
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def generating() -> StopRequest:
    stop = StopRequest()
    stop.loading = False
    return stop


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_while_the_engine_loads_interrupts_the_load(number: signal.Signals) -> None:
    stop = StopRequest()
    with stop.listening(), pytest.raises(Interrupted):
        os.kill(os.getpid(), number)
        raise AssertionError("the load went on")
    assert stop.requested


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_while_rows_are_generated_is_noted_and_breaks_into_nothing(number: signal.Signals) -> None:
    stop = generating()
    with stop.listening():
        assert not stop.requested
        os.kill(os.getpid(), number)
        assert stop.requested


def test_a_closed_terminal_is_no_request_under_nohup() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    stop = StopRequest()
    with stop.listening():
        os.kill(os.getpid(), signal.SIGHUP)
    assert not stop.requested


def test_after_a_request_no_signal_keeps_the_process_from_saying_so() -> None:
    heard: list[int] = []
    for number in NUMBERS:
        signal.signal(number, lambda number, frame: heard.append(number))
    stop = generating()
    with stop.listening():
        os.kill(os.getpid(), signal.SIGTERM)
    for number in NUMBERS:
        os.kill(os.getpid(), number)
    assert heard == []


def test_without_a_request_the_handlers_of_before_are_back() -> None:
    before = {number: signal.getsignal(number) for number in NUMBERS}
    with StopRequest().listening():
        assert all(signal.getsignal(number) != handler for number, handler in before.items())
    assert {number: signal.getsignal(number) for number in NUMBERS} == before


# A run that takes no notice of the first signal until it reads a line, and then exits with 0 unless a signal that came
# before that line ends it.
RUN = """
import sys, threading
from run_batch.jobs.machine import stop_signals
stop_signals._REPEAT_SECONDS = float(sys.argv[1])
stop = stop_signals.StopRequest(save_seconds=float(sys.argv[2]))
stop.loading = False
stop.save = lambda: print("saved", flush=True)
with stop.listening():
    print("listening", flush=True)
    while not stop.requested:
        pass
    print("requested", flush=True)
    sys.stdin.readline()
for thread in threading.enumerate():
    if thread.name == "stop-request":
        thread.join()
"""


@contextlib.contextmanager
def run(repeat_seconds: float, save_seconds: float) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-c", RUN, str(repeat_seconds), str(save_seconds)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == "listening\n"
        yield process


@pytest.mark.parametrize(
    ("first", "second", "repeat_seconds", "code"),
    [
        (signal.SIGTERM, signal.SIGTERM, 60, 0),
        (signal.SIGUSR1, signal.SIGTERM, 60, 0),  # both reach a task of Slurm's
        (signal.SIGTERM, signal.SIGTERM, 0, EXIT_INTERRUPTED),
        (signal.SIGINT, signal.SIGINT, 60, EXIT_INTERRUPTED),  # from a person
    ],
)
def test_a_second_signal_ends_the_process_at_once_unless_it_repeats_the_first(
    first: signal.Signals, second: signal.Signals, repeat_seconds: float, code: int
) -> None:
    with run(repeat_seconds, save_seconds=60) as process:
        assert process.stdin is not None and process.stdout is not None
        process.send_signal(first)
        assert process.stdout.readline() == "requested\n"
        process.send_signal(second)
        if code == 0:
            process.stdin.write("\n")
            process.stdin.flush()
        assert process.wait(30) == code


def test_a_run_that_does_not_react_to_a_signal_is_saved_and_ended() -> None:
    with run(repeat_seconds=60, save_seconds=0.01) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == EXIT_INTERRUPTED
        assert process.stdout is not None and "saved\n" in process.stdout


def test_a_signal_during_an_import_ends_the_process_at_once_and_gives_up_what_it_holds() -> None:
    """An exception would come out of the import, where modules in C may swallow it, or crash."""
    code = """
import os, signal, sys, types
from run_batch.jobs.machine.stop_signals import StopRequest

class Finder:
    def find_spec(name, path=None, target=None):
        if name == "slow_module":
            try:
                os.kill(os.getpid(), signal.SIGINT)
            except BaseException:
                print("swallowed")

sys.meta_path.insert(0, Finder)
stop = StopRequest()
stop.abandon = lambda: print("given up", flush=True)
with stop.listening():
    import slow_module
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (found.returncode, found.stdout) == (EXIT_INTERRUPTED, "given up\n")
    assert found.stderr == "run-batch: interrupted; run the same command again to go on\n"
