"""The process that the processes of tests are forked from: it has imported all that they import."""

import multiprocessing
import os
from pathlib import Path

_TESTS = Path(__file__).parent
# It finds modules by the environment alone.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(_TESTS / "faults"), str(_TESTS), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
)
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["command_imports", "stand_ins", "rowless"])
