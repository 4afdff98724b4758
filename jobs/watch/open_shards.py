"""The finished rows that are in no committed shard: in journals, or told of by processes that run."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping

from run_batch.io.outputs.shards import ShardStore
from run_batch.jobs.job.plan import Plan
from run_batch.jobs.job.rows import RowResult
from run_batch.jobs.results.journal_files import read_rows, segments
from run_batch.jobs.results.shard_commits import Commit
from run_batch.jobs.results.shard_writer import OpenRows
from run_batch.jobs.watch.progress import ProgressRecord


class OpenShards:
    """What is finished of each shard, as far as journals and running processes tell, committed or not."""

    def __init__(self, store: ShardStore, job_hash: str, plan: Plan, running: Collection[ProgressRecord]) -> None:
        """Read the journals.

        Args:
            running: the progress of the processes that run. Each tells of its own rows in it.

        Raises:
            OSError: the journals cannot be read.
        """
        self._plan = plan
        self._journalled: dict[int, OpenRows] = defaultdict(OpenRows)
        # Of a shard that an earlier plan ends in, some of these may be committed.
        self._of_cut: dict[int, list[RowResult]] = defaultdict(list)
        self._told: dict[int, list[OpenRows]] = defaultdict(list)
        self._read(store, job_hash, {record.writer for record in running})
        for record in running:
            for shard, *counts in record.open_shards:
                self._told[shard].append(OpenRows(*counts))

    def __bool__(self) -> bool:
        return bool(self._journalled or self._told)

    def _read(self, store: ShardStore, job_hash: str, running: Collection[str]) -> None:
        """Count the rows in the journals of processes that do not run; a row in two journals counts once."""
        seen: set[int] = set()
        for segment in segments(store):
            for _, result in read_rows(segment, job_hash) if segment.writer not in running else ():
                if result.row in seen:
                    continue
                seen.add(result.row)
                shard = self._plan.shard_of(result.row)
                self._journalled[shard].count(result)
                if shard in self._plan.cut:
                    self._of_cut[shard].append(result)

    def uncommitted(self, commits: Mapping[int, Commit]) -> Iterator[OpenRows]:
        """What is finished of each shard and not in these commits, which have been read later.

        A process that works on a shard takes over what others have left of it, so the largest of the counts is that of
        all.
        """
        for shard in {*self._journalled, *self._told}:
            commit = commits.get(shard)
            if commit is None:
                yield max([self._journalled[shard], *self._told[shard]], key=lambda open_rows: open_rows.rows)
            elif commit.rows < len(self._plan.rows(shard)):
                yield self._beyond(commit)

    def _beyond(self, commit: Commit) -> OpenRows:
        """What is finished of the rows that a shard has got since it was committed."""
        stop = self._plan.rows(commit.shard).start + commit.rows
        journalled = OpenRows()
        for result in self._of_cut[commit.shard]:
            if result.row >= stop:
                journalled.count(result)
        told = [open_rows for open_rows in self._told[commit.shard] if open_rows.attempt > commit.attempt]
        return max([journalled, *told], key=lambda open_rows: open_rows.rows)
