"""What earlier runs of a job left besides committed shards: rows in journals, and rows that may kill the engine.

File names hold the label of the share, so that several processes, each with a share of its own, can work on one folder
without minding each other.
"""

import functools
from dataclasses import dataclass
from pathlib import Path

from run_batch.io.coordination.claims import Claims
from run_batch.jobs.engine.running_rows import read_running
from run_batch.jobs.engine.suspects import Suspects
from run_batch.jobs.job.errors import RunError
from run_batch.jobs.job.plan import job_hash
from run_batch.jobs.job.prepare import PreparedJob
from run_batch.jobs.job.rows import RowResult
from run_batch.jobs.job.work import Work
from run_batch.jobs.results.recovery import recover


@dataclass(frozen=True, slots=True)
class Resumed:
    """Attributes:
    results: finished rows of the share's shards that are to be committed here; all of these are claimed.
    adopted: journal files to remove once these shards are committed.
    suspects: rows that were in the engine when it died, with it or with its process.
    note_file: where this process notes the rows in its engine.
    """

    results: dict[int, RowResult]
    adopted: list[tuple[Path, set[int]]]
    suspects: Suspects
    note_file: Path


def resume(job: PreparedJob, work: Work, claims: Claims) -> Resumed:
    """Read what earlier runs left of a share; no other process of this share is alive.

    Raises:
        RunError: the output folder cannot be read or written.
    """
    store, label = job.store, job.share.label
    note_file = store.own_folder / f"running-{label}"
    attempt = functools.cache(lambda shard: work.attempt(store, shard))

    def is_left(row: int) -> bool:
        shard = row // job.plan.rows_per_shard
        return attempt(shard) is not None and row not in results and row in work.rows(shard)

    try:
        found = recover(store, job_hash(job.identity), job.plan, job.shards, attempt, label)
        results = claimed_rows(job, found.results, claims)
        suspects = Suspects(store.own_folder / f"suspects-{label}.json")
        suspects.keep_only(is_left)
        running = [row for row in read_running(note_file) or [] if is_left(row)]
        if running:
            suspects.died(running)
        note_file.unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"{store.run_folder} cannot be read or written: {error}") from None
    return Resumed(results, found.adopted, suspects, note_file)


def claimed_rows(job: PreparedJob, results: dict[int, RowResult], claims: Claims) -> dict[int, RowResult]:
    """The rows of shards that no other process works on."""
    ours = {shard: claims.take(shard) for shard in {row // job.plan.rows_per_shard for row in results}}
    return {row: result for row, result in results.items() if ours[row // job.plan.rows_per_shard]}
