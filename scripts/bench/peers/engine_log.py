"""A plugin that logs when the engine works: `start end` of every step of vLLM's core, in seconds since the epoch.

It writes to the file that BENCH_ENGINE_LOG names, for every system, in whichever process the engine runs.
"""

import functools
import os
import sys
import time
from collections.abc import Callable
from typing import Any


def note_engine_work(path: str) -> None:
    from vllm.v1.engine.core import EngineCore

    file = open(path, "a", buffering=1)  # noqa: SIM115 (as long as the process)

    def timed(step: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(step)
        def run(*args: Any, **kwargs: Any) -> Any:
            start = time.time()
            result = step(*args, **kwargs)
            file.write(f"{start:.6f} {time.time():.6f}\n")
            return result

        return run

    for name in ("step", "step_with_batch_queue"):
        setattr(EngineCore, name, timed(getattr(EngineCore, name)))


# run-batch's worker processes (`python -c ...`) have no engine, and must not import one for this.
if "BENCH_ENGINE_LOG" in os.environ and sys.argv[0] != "-c":
    note_engine_work(os.environ["BENCH_ENGINE_LOG"])
