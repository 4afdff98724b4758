"""What earlier runs of a job left besides committed shards: rows in journals, and rows that may kill the engine.

File names carry the label of the share, so that several processes, each with a share of its own, work on one folder
without waiting for each other.
"""

import functools
import queue
from dataclasses import dataclass
from pathlib import Path

from run_batch.io.coordination.claims import Claims
from run_batch.io.outputs.shards import ShardStore
from run_batch.jobs.engine.running_rows import read_running
from run_batch.jobs.engine.suspects import Suspects
from run_batch.jobs.job.errors import storage_failed
from run_batch.jobs.job.prepare import PreparedJob
from run_batch.jobs.job.rows import RowResult
from run_batch.jobs.job.work import Work
from run_batch.jobs.results.journal_files import Segment
from run_batch.jobs.results.recovery import recover
from run_batch.jobs.runner.work_planning import begin_shard, look_at


@dataclass(frozen=True, slots=True)
class Resumed:
    """What a run of a share goes on from.

    Attributes:
        results: finished rows of shards that are to be committed by this run; all of these shards are claimed.
        adopted: journal files of earlier runs of this share, each with the shards after whose commit it is removed.
        suspects: rows that were in the engine when it died, alone or with its process.
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
    left_of = functools.cache(lambda shard: look_at(work, store, shard))

    def is_left(row: int) -> bool:
        left = left_of(job.plan.shard_of(row))
        return left is not None and row not in results and row in left.rows

    try:
        found = recover(store, job.record.job_hash, work, job.shards, left_of)
        results = _of_claimed_shards(found.results, work, store, claims)
        suspects = Suspects(store.own_folder / f"suspects-{label}.json")
        suspects.keep_only(is_left)
        running = [row for row in read_running(note_file) or [] if is_left(row)]
        if running:
            suspects.died(running)
        note_file.unlink(missing_ok=True)
    except OSError as error:
        raise storage_failed(f"{store.run_folder} cannot be read or written", error) from error
    adopted = [(segment.path, shards) for segment, shards in found.segments if segment.label == label]
    return Resumed(results, adopted, suspects, note_file)


def _of_claimed_shards(
    results: dict[int, RowResult], work: Work, store: ShardStore, claims: Claims
) -> dict[int, RowResult]:
    """Claim the shards of some rows; the rows of those that no other process works on, or has committed just now."""
    left = {shard: begin_shard(work, store, claims, shard) for shard in {work.plan.shard_of(row) for row in results}}
    return {
        row: result
        for row, result in results.items()
        if (now := left[work.plan.shard_of(row)]) is not None and row in now.rows
    }


class ShardRecovery:
    """Finished rows of each shard whose turn comes, from the journals of earlier runs and of other processes: one that
    helped with the shard may have ended meanwhile, in good order or not.

    Attributes:
        late: rows that were found when the turn of their shard came.
    """

    def __init__(self, job: PreparedJob, work: Work, results: dict[int, RowResult]) -> None:
        """Start from what is recovered before the first shard is given out.

        Args:
            results: by row.
        """
        self._job, self._work, self._results = job, work, results
        self._read: dict[Path, tuple[int, set[int]]] = {}
        self.late: queue.SimpleQueue[dict[int, RowResult]] = queue.SimpleQueue()

    def rows(self, shard: int) -> dict[int, RowResult]:
        """The finished rows of a shard that is given out.

        Raises:
            OSError: the journals cannot be read.
        """
        left = self._work.left_of(shard)
        known = {row: self._results[row] for row in left.rows if row in self._results}
        if known:
            return known
        job = self._job
        alone, is_own = range(shard, shard + 1), shard in job.shards
        sizes: dict[Path, int] = {}

        def is_wanted(segment: Segment) -> bool:
            if is_own and segment.label == job.share.label:
                return False  # of an earlier run of the share, and read when this one began, or of this one
            sizes[segment.path] = _size(segment.path)
            size, shards = self._read.get(segment.path, (-1, set()))
            return sizes[segment.path] != size or shard in shards

        found = recover(job.store, job.record.job_hash, self._work, alone, lambda _: left, is_wanted)
        self._read.update({segment.path: (sizes[segment.path], shards) for segment, shards in found.segments})
        if found.results:
            self.late.put(found.results)
        return found.results


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # its rows are committed
        return 0
