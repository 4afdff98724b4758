"""Processes that vLLM starts, of an engine and of its ranks, as forks: each would import vLLM for seconds otherwise.

They are forked from the process that commands are forked from, with what they would have inherited.
"""

import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Mapping
from multiprocessing import context, forkserver, reduction
from typing import Any


class _Target:
    """What a process is to run, in the environment of the one that starts it, and with its standard streams."""

    def __init__(self, function: Callable[..., None]) -> None:
        self._function = function

    def __reduce__(self) -> Any:
        return _begin, (self._function, dict(os.environ), reduction.DupFd(1), reduction.DupFd(2))


def _begin(function: Callable[..., None], environment: Mapping[str, str], *streams: Any) -> Callable[..., None]:
    """Called in the process that was started, before the arguments of `function` are unpickled."""
    os.environ.clear()
    os.environ.update(environment)
    for number, stream in enumerate(streams, 1):
        os.dup2(stream.detach(), number)
    return functools.partial(_run, function)


def _run(function: Callable[..., None], *arguments: Any, **named: Any) -> None:
    """Run a function, and end with the process that has started this one, whose child this one is not."""
    from run_batch.model import plugin

    plugin._die_with_parent = threading.Thread(target=_end_with_starter, daemon=True).start
    fork_its_processes()
    function(*arguments, **named)


def _end_with_starter() -> None:
    starter = multiprocessing.parent_process()
    assert starter is not None
    starter.join()
    os.kill(os.getpid(), signal.SIGKILL)


class _Process(context.ForkServerProcess):
    def __init__(self, *arguments: Any, target: Callable[..., None], **named: Any) -> None:
        super().__init__(*arguments, target=_Target(target), **named)


class _Context(context.ForkServerContext):
    Process = _Process  # type: ignore[assignment]


def fork_its_processes() -> None:
    """Let vLLM fork what it would start anew, in a process that was forked itself."""
    from vllm.v1.engine import coordinator, utils
    from vllm.v1.executor import multiproc_executor

    # It would start another fork server, as it cannot wait for one that is no child of its own.
    forkserver._forkserver.ensure_running = lambda: None  # type: ignore[attr-defined]
    for module in (coordinator, utils, multiproc_executor):
        module.get_mp_context = _Context
