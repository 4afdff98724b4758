"""`run_batch.jobs.run` in a process of its own, from its main thread and from another one."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import jobs

pytestmark = pytest.mark.engine

TEXT_ONLY = {"input": {"image_column": "", "id_column": None}, "prompt": {"template": "USER: {prompt} ASSISTANT:"}}
CALLS = """
import json, signal, sys, threading
from run_batch.jobs import JobError, RunError, run

handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)]
job, done, found = sys.argv[1], sys.argv[2], {}

def call(name, *args, **kwargs):
    try:
        result = run(*args, **kwargs)
        found[name] = [result.exit_code, str(result.folder), result.summary]
    except (JobError, RunError) as error:
        found[name] = [type(error).__name__, str(error)]

def all_calls(where):
    call(where + " complete", done)
    call(where + " missing", job + "x")
    call(where + " refused by the run", job, overrides={"input.id_column": "no such"})

all_calls("main")
call("half an option", done, task_index=0)
call("override", done, overrides={"errors.max_fraction": 0.0})
call("none", done, overrides={"input.limit": None})
thread = threading.Thread(target=all_calls, args=("thread",))
thread.start()
thread.join()
found["handlers"] = handlers == [
    signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
]
found["vllm"] = "vllm" in sys.modules or "torch" in sys.modules
print(json.dumps(found))
"""
CALL = """
import sys
from run_batch.jobs import run
try:
    print(run(sys.argv[1]).exit_code)
except KeyboardInterrupt:
    print("interrupted")
"""


def write_job(folder: Path, rows: int = 4) -> Path:
    prompts = [f"{question} {i}" for i, question in enumerate((jobs.QUESTIONS * rows)[:rows])]
    return jobs.write_job(folder, {"prompt": prompts}, **TEXT_ONLY)


def test_a_call_tells_how_a_job_ended_in_any_thread_and_leaves_the_caller_as_it_was(tmp_path: Path) -> None:
    job, done = write_job(tmp_path / "new"), write_job(tmp_path / "done")
    prompts = {"prompt": ["short", "x" * 5000]}
    done = jobs.write_job(tmp_path / "done", prompts, **TEXT_ONLY, errors={"max_fraction": 0.5})
    assert jobs.run(done).returncode == 0
    words = [sys.executable, "-c", CALLS, str(job), str(done)]
    called = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, timeout=200)
    assert called.returncode == 0, called.stderr
    found = json.loads(called.stdout)
    folder = str(done.parent / "out")
    for where in ("main", "thread"):
        assert found[f"{where} complete"] == [0, folder, f"all 2 rows are done already; results in {folder}"]
        assert found[f"{where} missing"] == ["JobError", f"{job}x: no such file"]
        kind, message = found[f"{where} refused by the run"]
        assert kind == "JobError" and message == "input.id_column names column 'no such'; the input has: prompt"
    assert found["half an option"] == ["JobError", "task_index and task_count go together"]
    assert found["override"][:2] == [3, folder]
    assert found["none"][1].startswith("input.limit = None: TOML has no such value")
    assert found["handlers"] and not found["vllm"]
    assert "run-batch: input.id_column names" in called.stderr


@pytest.fixture
def calling(tmp_path: Path) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """A call in a process of its own, some rows after its start."""
    job = write_job(tmp_path / "job", 3000)
    words = [sys.executable, "-c", CALL, str(job)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as caller:
        jobs.wait_for_shards(job, 2, caller)
        yield job, caller


@pytest.mark.long
def test_an_interrupted_call_saves_its_rows_and_the_next_one_completes_the_job(
    calling: tuple[Path, subprocess.Popen[bytes]],
) -> None:
    job, caller = calling
    caller.send_signal(signal.SIGINT)
    shown, said = caller.communicate(timeout=100)
    assert shown == b"interrupted\n" and b"interrupted; run the same command again" in said
    assert 2 <= len(jobs.shards(job)) < 60
    words = [sys.executable, "-c", CALL, str(job)]
    again = subprocess.run(words, capture_output=True, text=True, timeout=200)
    assert again.stdout == "0\n" and jobs.results(job).num_rows == 3000, again.stderr


@pytest.mark.long
def test_a_run_ends_with_the_process_that_called_it(calling: tuple[Path, subprocess.Popen[bytes]]) -> None:
    job, caller = calling
    (run,) = psutil.Process(caller.pid).children()
    caller.kill()
    run.wait(timeout=30)
    assert len(jobs.shards(job)) < 60
