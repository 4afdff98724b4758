"""What an engine does while it starts, for the run to tell.

vLLM starts an engine in steps that are methods of its Executor, in whichever process the engine is. Each step is noted
with its time in an in-memory file (memfd) of the run's process, so nothing is left on disk, however the processes end.
"""

import contextlib
import functools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

PHASES_VARIABLE = "RUN_BATCH_ENGINE_PHASES"


class Phase(StrEnum):
    """A part of the start of an engine, in words for people."""

    STARTING = "starting vLLM"
    LOADING = "loading the weights"
    COMPILING = "compiling the model"
    MEASURING = "measuring memory"
    ALLOCATING = "allocating the KV cache"
    CAPTURING = "capturing CUDA graphs"
    WARMING_UP = "warming up"


@dataclass(frozen=True, slots=True)
class BegunPhase:
    """A phase that has begun.

    Attributes:
        since: by `time.monotonic`, which is one clock for all processes of a machine.
    """

    phase: Phase
    since: float


@functools.cache
def _file() -> int:
    """The file of this process. It is never closed: a process of an engine may still write to this descriptor."""
    return os.memfd_create("run-batch-engine-phases")


# A fork is another process: it has a file of its own.
os.register_at_fork(after_in_child=_file.cache_clear)


def listen_for_phases() -> None:
    """Have phases noted in a file of this process, by it and by the processes that it starts from now on."""
    os.environ[PHASES_VARIABLE] = f"/proc/{os.getpid()}/fd/{_file()}"


def begun_phases(since: float) -> list[BegunPhase]:
    """The phases that have begun since a time, in any process that notes them here."""
    lines = os.pread(_file(), os.fstat(_file()).st_size, 0).decode().splitlines()
    found = (BegunPhase(Phase(name), float(seconds)) for seconds, _, name in (line.partition(" ") for line in lines))
    return [begun for begun in found if begun.since >= since]


def phase_seconds(since: float) -> dict[Phase, float]:
    """How long each phase since a time has taken, up to now."""
    begun, seconds = begun_phases(since), dict.fromkeys(Phase, 0.0)
    for one, following in zip(begun, [*(next.since for next in begun[1:]), time.monotonic()], strict=False):
        seconds[one.phase] += following - one.since
    return {phase: took for phase, took in seconds.items() if took}


def begin_phase(phase: Phase) -> None:
    """Note that a phase begins now, if a run listens."""
    path = os.environ.get(PHASES_VARIABLE)
    if path is None:
        return
    with contextlib.suppress(OSError):  # the run has ended
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        try:
            os.write(file, f"{time.monotonic()} {phase}\n".encode())
        finally:
            os.close(file)


def note_phases() -> None:
    """Have vLLM's executors note their phases, in this process."""
    if PHASES_VARIABLE not in os.environ:
        return
    from vllm.v1.executor.abstract import Executor

    steps: dict[str, Callable[[Any], Phase]] = {
        "__init__": lambda _: Phase.LOADING,
        "determine_available_memory": lambda config: Phase.COMPILING if config.mode else Phase.MEASURING,
        "initialize_from_config": lambda _: Phase.ALLOCATING,
        "compile_or_warm_up_model": _last_phase,
    }
    for name, phase_of in steps.items():
        step = getattr(Executor, name, None)
        if step is not None and not hasattr(step, "notes_phase"):
            setattr(Executor, name, _noting(step, phase_of))


def _noting(step: Callable[..., Any], phase_of: Callable[[Any], Phase]) -> Callable[..., Any]:
    """A method of Executor that notes its phase first; what `phase_of` gets is vLLM's compilation config."""

    @functools.wraps(step)
    def noting(self: Any, *arguments: Any, **named: Any) -> Any:
        # The first step is the constructor, which is what sets the config.
        begin_phase(phase_of(getattr(getattr(self, "vllm_config", None), "compilation_config", None)))
        return step(self, *arguments, **named)

    noting.notes_phase = True  # type: ignore[attr-defined]
    return noting


def _last_phase(config: Any) -> Phase:
    mode = getattr(config, "cudagraph_mode", None)
    return Phase.WARMING_UP if mode is None or mode.name == "NONE" else Phase.CAPTURING
