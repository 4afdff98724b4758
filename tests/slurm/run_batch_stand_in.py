"""`run-batch`, all commands of it, with the stand-ins of tests/faults for the engine and the workers.

`speed.json` beside job.toml has their Speed; `generated.log` there gets every row that they generate.
"""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

TESTS = Path(__file__).parents[1]


def start_engine(config: Any) -> Any:
    from stand_ins import Speed, StandInEngine

    speed = Speed(**json.loads((config.folder / "speed.json").read_text()))
    return StandInEngine(config.folder / "generated.log", speed)


def stand_in_for_check() -> ModuleType:
    """The real one imports vLLM, which takes seconds."""
    module = ModuleType("run_batch.jobs.check")
    setattr(module, "check_job", lambda job: "checked")  # noqa: B010
    return module


def main() -> None:
    sys.path[:0] = [str(TESTS), str(TESTS / "faults")]
    sys.modules["run_batch.jobs.check"] = stand_in_for_check()
    from run_batch.jobs import cli

    if sys.argv[1] != "submit":
        from stand_ins import ForkedPool

        from run_batch.jobs import pipeline

        stand_ins = {
            "WorkerPool": ForkedPool,
            "result_metadata": lambda config, identity: {},
            "_start_vllm": start_engine,
        }
        for name, stand_in in stand_ins.items():
            setattr(pipeline, name, stand_in)
    cli.main()


if __name__ == "__main__":
    main()
