"""`run-batch` with real vLLM that logs every row it generates, and its processes, next to job.toml.

Called as `python counting.py --config job.toml ...`, or in a command that was forked.
"""

import os
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from run_batch.jobs.cli import main
from run_batch.jobs.engine import start_vllm
from run_batch.jobs.engine import vllm_engine as engine
from run_batch.jobs.job.rows import Generation
from run_batch.model.checkpoint.settings import ModelSettings


class CountingEngine(engine.Engine):
    folder: Path

    def __init__(self, settings: ModelSettings, sampling: Mapping[str, Any], extra: Collection[str] = ()) -> None:
        super().__init__(settings, sampling, extra)
        self._log = os.open(self.folder / "generated.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
        (self.folder / "engine.pid").write_text(" ".join(str(process.pid) for process in self._processes))

    def step(self) -> list[Generation]:
        finished = super().step()
        os.write(self._log, b"".join(b"%d\n" % result.row for result in finished))
        return finished


def count_rows(folder: Path) -> None:
    """Let the engines of this process log into a folder."""
    CountingEngine.folder = folder
    start_vllm.Engine = CountingEngine  # type: ignore[misc]


if __name__ == "__main__":
    count_rows(Path(sys.argv[sys.argv.index("--config") + 1]).parent)
    main()
