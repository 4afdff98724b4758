"""How the process of a share has ended: a small file in the share's folder, for `status`.

A process that begins removes the one before it, so a process that was killed has none.
"""

import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from signal import Signals

import msgspec

from run_batch.io.coordination.lease import Lease, LeaseLost
from run_batch.io.files import replace_file
from run_batch.io.outputs.shards import ShardStore
from run_batch.io.secrets import hide_secrets
from run_batch.io.transient import may_pass
from run_batch.jobs.job.errors import (
    EXIT_BAD_JOB,
    EXIT_COMPLETE,
    EXIT_INTERRUPTED,
    EXIT_MAY_PASS,
    EXIT_RUN_FAILED,
    EXIT_TOO_MANY_FAILURES,
    Interrupted,
)
from run_batch.jobs.job.recorded_job import JOB_FILE

END_FILE = "end.json"
RUNS_FILE = "runs.jsonl"
# Of a message; the process itself says it whole.
_CHARACTERS = 500


_KILLED = "killed, or its machine went down"
# As docs/errors.md and docs/slurm.md have them.
_MEANINGS = {
    EXIT_COMPLETE: "done",
    EXIT_RUN_FAILED: "it failed; the same command may go on",
    EXIT_BAD_JOB: "the job or its settings are wrong: mend them first",
    EXIT_TOO_MANY_FAILURES: "complete, with more failed rows than errors.max_fraction",
    EXIT_MAY_PASS: "storage or network failed, which may pass: go on with the same command",
    EXIT_INTERRUPTED: "interrupted: go on with the same command",
}


def exit_in_words(code: int | None) -> str:
    """What an exit code means; None is that of a process that has left none, a negative one names a signal."""
    if code is None or code < 0:
        return _KILLED if code is None else f"killed by {Signals(-code).name}"
    return _MEANINGS.get(code, "")


class RunEnd(msgspec.Struct, frozen=True):
    """The end of a process.

    Attributes:
        host: where it ran.
        exit_code: of the process; the negative number of the signal that has killed it.
        why: the message that it ended with; empty if there was none.
        time: seconds since the epoch by the clock of its host, for people to read.
    """

    host: str
    exit_code: int
    why: str
    time: float


class Run(msgspec.Struct, frozen=True):
    """A line of `runs.jsonl`: that a process has begun, or, with an exit code, that it has ended.

    Attributes:
        host: where it runs.
        began, ended: seconds since the epoch by the clock of its host.
        exit_code: see RunEnd; None in the first line of a process, its only one if it is killed.
    """

    host: str
    began: float
    ended: float | None = None
    exit_code: int | None = None


def _append(folder: Path, run: Run) -> None:
    with contextlib.suppress(OSError), open(folder / RUNS_FILE, "ab") as file:
        file.write(msgspec.json.encode(run) + b"\n")


def read_runs(file: Path) -> list[Run]:
    """The processes that a share has had, in the order in which they began; of one that has ended, its end."""
    runs: dict[tuple[str, float], Run] = {}
    with contextlib.suppress(OSError):
        for line in file.read_bytes().splitlines():
            with contextlib.suppress(msgspec.MsgspecError):  # torn by a crash
                run = msgspec.json.decode(line, type=Run)
                runs[run.host, run.began] = run
    return list(runs.values())


def note_end(folder: Path, exit_code: int, why: str = "") -> None:
    """Write how a process of this host has ended; it is for people, so a failure to write it is none of the run's.

    Args:
        folder: of its share.
    """
    end = RunEnd(socket.gethostname(), exit_code, hide_secrets(why)[:_CHARACTERS], time.time())
    with contextlib.suppress(OSError):
        replace_file(folder / END_FILE, msgspec.json.encode(end), durable=False)
    for run in read_runs(folder / RUNS_FILE)[-1:]:
        if run.ended is None:
            _append(folder, msgspec.structs.replace(run, ended=end.time, exit_code=exit_code))


def forget_end(folder: Path) -> None:
    """Remove what the last process of a share has noted: another one begins."""
    with contextlib.suppress(OSError):
        (folder / END_FILE).unlink(missing_ok=True)


@contextlib.contextmanager
def noting_end(store: ShardStore, lease: Lease) -> Iterator[None]:
    """Around what the process of a share does while it holds the lease.

    A job that has withdrawn its record leaves nothing, nor does a process whose share another one has taken over.
    """
    forget_end(store.own_folder)
    if (store.run_folder / JOB_FILE).exists():
        _append(store.own_folder, Run(socket.gethostname(), time.time()))
    code, why = EXIT_COMPLETE, ""
    try:
        yield
    except Interrupted:
        code = EXIT_INTERRUPTED
        raise
    except Exception as error:
        code = EXIT_MAY_PASS if may_pass(error) else getattr(error, "exit_code", EXIT_RUN_FAILED)
        why = str(error) or type(error).__name__
        raise
    finally:
        with contextlib.suppress(OSError, LeaseLost):
            lease.check()
            if (store.run_folder / JOB_FILE).exists():
                note_end(store.own_folder, code, why)


def read_end(folder: Path) -> RunEnd | None:
    """How the last process of a share has ended; None if it runs, or was killed."""
    try:
        return msgspec.json.decode((folder / END_FILE).read_bytes(), type=RunEnd)
    except (OSError, msgspec.MsgspecError):
        return None
