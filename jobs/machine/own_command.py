"""The command line of this process, for tasks that run the same program on other machines."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from run_batch.io.secrets import hide_secrets
from run_batch.jobs.job.errors import JobError


def this_program() -> list[str]:
    """The program that runs now, as a command: tasks run the same installation on the same Python."""
    program = Path(sys.argv[0]).absolute()
    return [str(program)] if os.access(program, os.X_OK) else [sys.executable, str(program)]


def set_arguments(overrides: Sequence[str]) -> list[str]:
    """The `--set` arguments of tasks, without those of [slurm], which no task reads.

    Raises:
        JobError: one that other users of a cluster would see and must not, or that a script cannot hold.
    """
    arguments = []
    for override in overrides:
        if hide_secrets(override) != override or override.startswith("engine.hf_token"):
            raise JobError(
                f"--set {override.partition('=')[0]}: its secret would be seen by others; put it into job.toml or, "
                "a token of the Hub, into HF_TOKEN"
            )
        if not override.isprintable():
            raise JobError(f"--set {override!r}: expected one line without control characters; put it into job.toml")
        arguments += [] if override.startswith("slurm.") else ["--set", override]
    return arguments
