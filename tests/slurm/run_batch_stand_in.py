"""`run-batch`, all commands of it, with the stand-ins of tests/faults for the engine and the workers.

Beside job.toml, `speed.json` has their Speed; while a file `stale` is there, no engine can be read from storage;
`generated.log` gets every row that they generate, and `placed.jsonl` what each process finds in its environment when it
starts its engine.
"""

import errno
import json
import mmap
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

TESTS = Path(__file__).parents[1]
PLACES = ("SLURM_ARRAY_TASK_ID", "SLURM_PROCID", "CUDA_VISIBLE_DEVICES", "VLLM_CACHE_ROOT", "HF_HUB_OFFLINE")


def start_engine(config: Any) -> Any:
    from stand_in_engine import Speed, StandInEngine

    found = {name: os.environ.get(name) for name in PLACES}
    with open(config.folder / "placed.jsonl", "a") as file:
        file.write(json.dumps(found) + "\n")
    if (config.folder / "stale").exists():
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE), "model.safetensors")
    speed = Speed(**json.loads((config.folder / "speed.json").read_text()))
    return StandInEngine(config.folder / "generated.log", speed)


def stand_in_for_check() -> ModuleType:
    """The real one imports vLLM, which takes seconds."""
    module = ModuleType("run_batch.jobs.check")
    setattr(module, "check_job", lambda job: "checked")  # noqa: B010
    return module


def stand_in_for_torch() -> ModuleType:
    """Nothing here has tensors, and to import it takes more than all else that a process does."""

    def from_file(path: str, **_: Any) -> Any:
        with open(path, "r+b") as file:
            memory = mmap.mmap(file.fileno(), 0)
        return SimpleNamespace(numpy=lambda: memory)

    module = ModuleType("torch")
    for name in ("Tensor", "dtype"):
        setattr(module, name, type(name, (), {}))
    for name, value in (("from_file", from_file), ("uint8", None)):
        setattr(module, name, value)
    return module


def main() -> None:
    sys.path[:0] = [str(TESTS), str(TESTS / "faults")]
    sys.modules["run_batch.jobs.check"] = stand_in_for_check()
    if sys.argv[1] != "ray":  # Ray asks torch for more
        sys.modules["torch"] = stand_in_for_torch()
    from run_batch.jobs import cli

    if sys.argv[1] not in ("submit", "status", "ray"):
        from forked_engines import fork_run
        from stand_in_workers import ForkedPool

        from run_batch.jobs.engines import run_engines
        from run_batch.jobs.machine import gpus
        from run_batch.jobs.runner import pipeline, run_job

        pipeline.WorkerPool = ForkedPool  # type: ignore[misc]
        run_job.result_metadata = lambda job: {}
        run_job.start_vllm = start_engine
        run_engines.start_process = fork_run(start_engine)
        gpus.is_cpu_build = lambda: False
    cli.main()


if __name__ == "__main__":
    main()
