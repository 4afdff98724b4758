"""A stand-in for the engine: a real process that takes the time of a speed and answers `text of PROMPT`.

Prompts steer it: `poison` kills it, `crash` kills the whole run, `hang` keeps it from ever answering, and `bug` lets
run-batch's own code fail. Of the tensor of a `large` row, it has a copy.
"""

import os
import signal
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from forked_process import Forked

from run_batch.jobs.engine.vllm_engine import EngineDied
from run_batch.jobs.job.rows import Generation, MappedRow, RowFailure


@dataclass(frozen=True)
class Speed:
    """How a stand-in engine runs.

    Attributes:
        max_num_seqs: rows that run at once.
        step_seconds: duration of one step; a row takes one to four.
        tame: whether prompts that steer the engine are taken for plain text.
    """

    max_num_seqs: int = 8
    step_seconds: float = 0.01
    tame: bool = False


class StandInEngine:
    """Generates `text of PROMPT` in a process of its own, and logs every row that it has generated."""

    def __init__(self, log: Path, speed: Speed) -> None:
        self.max_num_seqs = speed.max_num_seqs
        self.unfinished = self.running = 0
        self._added: list[tuple[int, str, int]] = []
        self._process = Forked(lambda connection: _generate(connection, log, speed))
        log.with_suffix(".engine").write_text(str(self._process.pid))

    def add(self, mapped: MappedRow) -> RowFailure | None:
        prompt, *tensors = mapped.engine_input if isinstance(mapped.engine_input, tuple) else (mapped.engine_input,)
        self._added.append((mapped.row, prompt, sum(tensor.nbytes for tensor in tensors)))
        self.unfinished += 1
        return None

    def step(self) -> list[Generation]:
        try:
            self._process.connection.send(self._added)
            self._added = []
            finished: list[Generation] = self._process.connection.recv()
        except (EOFError, OSError):
            raise EngineDied("its process is dead") from None
        if any(result.texts == ("text of bug",) for result in finished):
            raise KeyError("a bug")
        self.unfinished -= len(finished)
        return finished

    def kill(self) -> bool:
        self._process.kill()
        return True

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

    discard = close


def _generate(connection: Connection, log: Path, speed: Speed) -> None:
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    queue: list[list[Any]] = []
    while True:
        queue += [[row, prompt, 1 + row % 4, b"1" * nbytes] for row, prompt, nbytes in connection.recv()]
        time.sleep(speed.step_seconds)
        running = queue[: speed.max_num_seqs]
        for request in running:
            if not speed.tame:
                _misbehave(request[1], connection)
            request[2] -= 1
        done = [request for request in running if request[2] == 0]
        queue = [request for request in queue if request[2] > 0]
        if done:
            os.write(file, b"".join(b"%d\n" % row for row, *_ in done))
        connection.send([Generation(row, (f"text of {prompt}",), "stop", 3, 4) for row, prompt, *_ in done])


def _misbehave(prompt: str, connection: Connection) -> None:
    if prompt.startswith("poison"):
        os._exit(9)
    if prompt.startswith("crash"):
        os.killpg(os.getpgid(0), signal.SIGKILL)
    if prompt.startswith("hang"):
        # Until the run is gone: it sends nothing more, so what it can be read for is the end of the pipe.
        connection.poll(1000)
        os._exit(0)


class InProcessEngine(StandInEngine):
    """One that the watchdog cannot kill: as vLLM's in this process."""

    def kill(self) -> bool:
        return False
