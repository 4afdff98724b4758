"""Ctrl-C while a command starts: the product's own processes, not stand-ins."""

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import jobs
from run_batch.jobs.job.errors import EXIT_INTERRUPTED
from run_batch.jobs.machine import early_signals

LINE = f"{early_signals.INTERRUPTED_LINE}\n"
# Commands that wait at the import of a module for a signal; `start` is what the console script begins with.
WAITING = """
import builtins, sys, time
imported = builtins.__import__
def waiting(name, *rest, **more):
    if name == {name!r} and "waited" not in globals():
        globals()["waited"] = True
        print("here", flush=True)
        try:
            time.sleep(60)
        except BaseException:
            raise ImportError("swallowed")
    return imported(name, *rest, **more)
builtins.__import__ = waiting
from run_batch.jobs.start import main
sys.argv = ["run-batch", *sys.argv[1:]]
main()
"""


def test_the_exit_code_is_that_of_all_interruptions() -> None:
    assert early_signals.EXIT_INTERRUPTED == EXIT_INTERRUPTED


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize("name", ["click", "pydantic", "pyarrow", "run_batch.jobs.job.prepare"])
def test_a_signal_during_an_import_is_one_line_and_exit_code_75(
    tmp_path: Path, name: str, number: signal.Signals
) -> None:
    job = jobs.write_job(tmp_path, jobs.rows(2))
    command = [sys.executable, "-c", WAITING.format(name=name), "check", "--config", str(job)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        # While a command runs, standard output is for its summary: others write to standard error.
        here = process.stderr if name == "run_batch.jobs.job.prepare" else process.stdout
        assert here.readline() == "here\n"
        process.send_signal(number)
        said = process.stderr.read()
        assert (process.wait(30), said) == (EXIT_INTERRUPTED, LINE)


def test_signals_are_handled_before_anything_heavy_is_imported() -> None:
    code = (
        "import sys, importlib, signal; before = set(sys.modules); "
        "import run_batch.jobs.start; print(*sys.modules.keys() - before)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(name.startswith("run_batch") for name in found.stdout.split()), found.stdout


@pytest.mark.long
@pytest.mark.parametrize("command", [(), ("check",)])
def test_ctrl_c_at_any_moment_of_a_start_is_one_line(tmp_path: Path, command: tuple[str, ...]) -> None:
    job = jobs.write_job(tmp_path, jobs.rows(300))
    for tenths in range(1, 100, 3):
        words = [str(jobs.COMMAND), *command, "--config", str(job)]
        with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
            time.sleep(tenths / 10)
            if process.poll() is not None:
                return
            os.killpg(process.pid, signal.SIGINT)
            assert process.stderr is not None
            said = process.stderr.read()
            assert process.wait(60) in (EXIT_INTERRUPTED, 0), said
            assert "Traceback" not in said and said.count(LINE) == (process.returncode == EXIT_INTERRUPTED), said


def test_a_signal_during_the_first_import_of_all_is_one_line_and_exit_code_75() -> None:
    code = (
        "import sys\n"
        "class Interrupting:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'run_batch.jobs.machine.early_signals': raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Interrupting())\n"
        "import run_batch.jobs.start\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (found.returncode, found.stderr) == (EXIT_INTERRUPTED, LINE)


def test_the_line_takes_the_place_of_what_stands_on_the_terminal() -> None:
    ours, theirs = pty.openpty()
    code = (
        "import os, signal; from run_batch.jobs.machine.early_signals import end_when_interrupted; "
        "end_when_interrupted(); os.write(2, b'checking ... 3 s'); os.kill(os.getpid(), signal.SIGINT)"
    )
    found = subprocess.run([sys.executable, "-c", code], stderr=theirs, timeout=60)
    assert found.returncode == EXIT_INTERRUPTED
    assert os.read(ours, 1000).decode() == f"checking ... 3 s\r\x1b[K{LINE[:-1]}\r\n"
    os.close(ours)
    os.close(theirs)
