"""`run_batch.jobs.run`: a job, or a share of it, as a call from Python, for notebooks and workflow systems.

The job runs in a process of its own: it takes signals, memory and standard output for itself, and may end its process.
The caller's process keeps its signal handlers, whichever thread calls, and imports no vLLM.
"""

import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from run_batch.jobs.job.config import load_config
from run_batch.jobs.job.errors import EXIT_BAD_JOB, EXIT_MAY_PASS, EXIT_RUN_FAILED, JobError, MayPassError, RunError
from run_batch.jobs.keys import toml_value

_ERRORS = {EXIT_BAD_JOB: JobError, EXIT_RUN_FAILED: RunError, EXIT_MAY_PASS: MayPassError}
# Of what the process says, for the message of an error.
_KEPT_LINES = 100
_OWN_LINE = "run-batch: "
_MODULE = "run_batch.jobs.start"


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run has ended.

    Attributes:
        exit_code: 0 complete; 3 complete, but more rows failed than `errors.max_fraction` allows; 75 interrupted by a
            signal after saving progress: the same call goes on.
        folder: of the results.
        summary: the line that the command prints to standard output; empty where it was interrupted early.
    """

    exit_code: int
    folder: Path
    summary: str


def run(
    config: str | Path,
    *,
    overrides: Mapping[str, Any] | None = None,
    retry_failed: bool = False,
    task_index: int | None = None,
    task_count: int | None = None,
    quiet: bool = True,
) -> RunResult:
    """Run a job, or resume it, as `run-batch --config CONFIG` does.

    May be called from any thread. What the run says goes to `sys.stderr`, line by line. When the caller's process ends,
    the run ends with it, and goes on from there with the next call.

    Args:
        config: a job.toml.
        overrides: values of single keys that win over the file, by `table.key`.
        retry_failed: generate again the rows that have an error, and only those.
        task_index, task_count: do one share of the job: this one of so many.
        quiet: show no progress.

    Raises:
        JobError: the job cannot start as it is configured.
        RunError: the run failed; the same call resumes it. It is a MayPassError where storage or network failed
            in a way that may pass.
        KeyboardInterrupt: the caller was interrupted; the run has saved its progress and ended.
    """
    _check_arguments(config, overrides, task_index, task_count)
    settings = [f"{key}={_toml(key, value)}" for key, value in (overrides or {}).items()]
    folder = load_config(Path(config), tuple(settings)).output_folder
    words = ["--config", str(config), *(word for setting in settings for word in ("--set", setting))]
    words += ["--retry-failed"] * retry_failed + ["--quiet"] * quiet
    for option, value in (("--task-index", task_index), ("--task-count", task_count)):
        words += [] if value is None else [option, str(value)]
    code, summary, said = _run_command(words)
    if code in _ERRORS:
        raise _ERRORS[code](_message(said))
    if code < 0:
        raise RunError(f"the run was ended by {signal.Signals(-code).name}; the same call goes on")
    return RunResult(code, folder, summary.strip())


def _check_arguments(config: object, overrides: object, task_index: object, task_count: object) -> None:
    """Refuse arguments of other types, in words of this call.

    Raises:
        JobError: names one.
    """
    if not isinstance(config, str | Path):
        raise JobError(f"config is a {type(config).__name__}; expected the path of a job.toml")
    if overrides is not None and not isinstance(overrides, Mapping):
        raise JobError(f'overrides is a {type(overrides).__name__}; expected a mapping such as {{"input.limit": 100}}')
    for key in overrides or ():
        if not isinstance(key, str) or "." not in key:
            raise JobError(f'overrides: {key!r} names no key; expected "table.key", such as "input.limit"')
    if (task_index is None) != (task_count is None):
        raise JobError("task_index and task_count go together")
    for name, value in (("task_index", task_index), ("task_count", task_count)):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise JobError(f"{name} = {value!r}: expected a whole number")


def _toml(key: str, value: Any) -> str:
    if value is None:
        raise JobError(f"{key} = None: TOML has no such value; leave the key out")
    return toml_value(str(value) if isinstance(value, os.PathLike) else value)


def _run_command(words: list[str]) -> tuple[int, str, list[str]]:
    """Run the command in a process of its own; its exit code, its standard output, the last lines of what it says."""
    said: deque[str] = deque(maxlen=_KEPT_LINES)
    command = [sys.executable, "-P", "-m", _MODULE, str(os.getpid()), *words]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, encoding="utf-8", errors="replace"
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        try:
            _pass_on(process.stderr, said)
        except BaseException:  # the caller is interrupted: the run saves its progress
            process.send_signal(signal.SIGTERM)
            _pass_on(process.stderr, said)
            raise
        summary = process.stdout.read()  # one line
        code = process.wait()
    return code, summary, list(said)


def _pass_on(stream: Iterable[str], said: deque[str]) -> None:
    """Pass on what a process says, until it ends."""
    for line in stream:
        said.append(line.rstrip("\n"))
        sys.stderr.write(line)


def _message(said: list[str]) -> str:
    """The error in what a command said: from its own last line on, or the last line of all."""
    own = [position for position, line in enumerate(said) if line.startswith(_OWN_LINE)]
    if own:
        return "\n".join(said[own[-1] :]).removeprefix(_OWN_LINE)
    return said[-1] if said else "the run failed without a message"
