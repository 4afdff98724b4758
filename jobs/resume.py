"""What earlier runs of a job left besides committed shards: rows in journals, and rows that may kill the engine.

File names hold the name of the set of shards that a process works on, so that several processes, each with shards of
its own, can share one folder without minding each other.
"""

import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from run_batch.jobs.errors import RunError
from run_batch.jobs.journal import Finished, recover
from run_batch.jobs.plan import job_hash
from run_batch.jobs.prepare import PreparedJob
from run_batch.jobs.running import read_running
from run_batch.jobs.suspects import Suspects
from run_batch.jobs.work import Work

# The name of the set of all shards.
ALL_SHARDS = "all"


@dataclass(frozen=True, slots=True)
class Resumed:
    """Attributes:
    results: finished rows of the shards that are to be committed.
    segments: journal files to remove once these shards are committed.
    suspects: rows that were in the engine when it died, with it or with its process.
    note_file: where this process notes the rows in its engine.
    """

    results: dict[int, Finished]
    segments: list[tuple[Path, set[int]]]
    suspects: Suspects
    note_file: Path


def resume(job: PreparedJob, work: Work) -> Resumed:
    """Read what earlier runs left; none of them is alive.

    Raises:
        RunError: the output folder cannot be read or written.
    """
    todo = set(work.shards)
    run_folder = job.store.run_folder
    note_file = run_folder / f"running-{ALL_SHARDS}"

    def attempt(shard: int) -> int | None:
        return work.attempts.get(shard, 0) if shard in todo else None

    def is_left(row: int) -> bool:
        shard = row // job.plan.rows_per_shard
        return shard in todo and row not in found.results and row in work.rows(shard)

    try:
        found = recover(job.store, job_hash(job.identity), job.plan, attempt, owned=lambda shard: True)
        suspects = Suspects(run_folder / f"suspects-{ALL_SHARDS}.json")
        suspects.keep_only(is_left)
        running = [row for row in read_running(note_file) or [] if is_left(row)]
        if running:
            suspects.died(running)
        note_file.unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"{run_folder} cannot be read or written: {error}") from None
    return Resumed(found.results, found.segments, suspects, note_file)


def writer_name() -> str:
    """What this process's journal files are called: no other process on any machine has the same name."""
    return f"{ALL_SHARDS}-{socket.gethostname()}-{os.getpid()}-{time.time_ns()}"
