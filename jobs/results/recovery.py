"""What earlier runs, and processes that died, left in journals: finished rows of shards that are not committed yet."""

from collections.abc import Callable
from dataclasses import dataclass, field

from run_batch.io.outputs.shards import ShardStore
from run_batch.jobs.job.rows import RowResult
from run_batch.jobs.job.work import Left, Work
from run_batch.jobs.results.journal_files import Segment, read_rows, segments


@dataclass(slots=True)
class Recovered:
    """Rows that journals hold.

    Attributes:
        results: finished rows of shards that are still to be committed, by row: a row in two journals counts once.
        segments: the journal files with rows of the job, each with those of its shards that are still to be committed.
    """

    results: dict[int, RowResult] = field(default_factory=dict)
    segments: list[tuple[Segment, set[int]]] = field(default_factory=list)


def recover(
    store: ShardStore,
    job_hash: str,
    work: Work,
    shards: range,
    left_of: Callable[[int], Left | None],
    is_wanted: Callable[[Segment], bool] = lambda segment: True,
) -> Recovered:
    """Read what journals hold of consecutive shards.

    Args:
        left_of: what is left of a shard that is to be committed; None for all others.
        is_wanted: asked for each journal file that may have rows of these shards, before it is read.

    Raises:
        OSError: the folder cannot be read.
    """
    found = Recovered()
    for segment in segments(store):
        is_outside = segment.shards.start >= shards.stop or segment.shards.stop <= shards.start
        if is_outside or not is_wanted(segment):
            continue
        seen: set[int] = set()
        for attempt, result in read_rows(segment, job_hash):
            shard = work.plan.shard_of(result.row)
            seen.add(shard)
            left = left_of(shard) if shard in shards else None
            if left is not None and work.takes(left, result.row, attempt):
                found.results.setdefault(result.row, result)
        if seen:
            found.segments.append((segment, {shard for shard in seen if left_of(shard) is not None}))
    return found
