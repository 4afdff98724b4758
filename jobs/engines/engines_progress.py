"""The progress of all engines of a run, added up from the files that each of them writes for itself.

A look costs a few file operations for each engine, however large the job is. Nothing is written here: to other
processes, the engines are shares as any others, and their parent is none.
"""

import time
from collections.abc import Mapping, Sequence

from run_batch.jobs.job.prepare import PreparedJob
from run_batch.jobs.job.shares import Share
from run_batch.jobs.results.shard_commits import Commit, CommittedShards, NewCommits
from run_batch.jobs.results.shard_writer import OpenRows
from run_batch.jobs.runner.finished_rows import accuracy
from run_batch.jobs.runner.work_planning import missing_work
from run_batch.jobs.watch.loading_line import LoadingLine, doing_now
from run_batch.jobs.watch.progress import PROGRESS_FILE, ProgressLine, ProgressRecord, read_progress
from run_batch.jobs.watch.run_messages import RunMessages


class EnginesProgress:
    """Counts what the engines of a run commit and have finished, and shows it as the progress of one run.

    Attributes:
        have_committed: shares whose engine has committed a shard since its owner took it out of here.
    """

    def __init__(
        self, job: PreparedJob, shares: Sequence[Share], committed: CommittedShards, retry: bool, quiet: bool
    ) -> None:
        """Start from what is committed.

        Args:
            job: the job, or the share of it that the engines divide.
            shares: those of the engines.
            committed: of all of these shares; what the engines commit is counted there.
            retry: the engines generate the failed rows of committed shards again.
            quiet: show no progress.
        """
        self._job, self._committed, self._retry, self._quiet = job, committed, retry, quiet
        work = missing_work(committed)
        self._set_left(
            {commit.shard: OpenRows(commit.failed, commit.failed) for commit in committed.with_failures()}
            if retry
            else {shard: OpenRows(len(work.rows(shard))) for shard in work.shards}
        )
        folders = {share: job.store.run_folder / share.folder for share in shares}
        self._files = {share: folder / PROGRESS_FILE for share, folder in folders.items()}
        self._commits = {share: NewCommits(folder) for share, folder in folders.items()}
        self._before = {share: read_progress(file) for share, file in self._files.items()}
        self._records: dict[Share, ProgressRecord] = {}
        # By process: an engine that is started again counts from 0.
        # Rows and tokens that each process has generated, and its rows without an image.
        self._generated: dict[str, tuple[int, int, int]] = {}
        self._stolen = 0
        self.have_committed: set[Share] = set()
        self._line: ProgressLine | None = None
        self._messages, self._started = RunMessages(quiet), time.monotonic()
        self._loading = None if quiet else LoadingLine(doing_now("loading the model"))

    @property
    def has_generated(self) -> bool:
        """Whether any engine has generated a row since the run began."""
        return any(rows for rows, _, _ in self._generated.values())

    def _set_left(self, left: dict[int, OpenRows]) -> None:
        """Set the rows to do of each shard, and how many of them count as failed until they are done."""
        self._left = left
        self._left_rows = sum(shard.rows for shard in left.values())
        self._left_failed = sum(shard.failed for shard in left.values())

    def look(self, share: Share) -> None:
        """Read what the engine of a share has done since the last look."""
        for commit in self._commits[share].take():
            self._count(commit)
            self.have_committed.add(share)
        record = read_progress(self._files[share])
        if record is not None and record != self._before[share]:
            self._records[share] = record
            self._generated[record.writer] = (record.generated_rows, record.generated_tokens, record.imageless_rows)

    def _count(self, commit: Commit) -> None:
        self._committed.damaged.discard(commit.shard)
        self._committed.add(commit)
        left = self._left.pop(commit.shard, None)
        if left is not None:
            self._left_rows -= left.rows
            self._left_failed -= left.failed
        elif commit.shard not in self._job.shards:
            self._stolen += commit.rows

    def is_done(self, share: Share) -> bool:
        """Whether the engines have committed all that a share had to do."""
        return self._left.keys().isdisjoint(share.shards(self._job.plan))

    def tick(self) -> None:
        """Show what has changed, at most once a second; nothing before the first engine is loaded."""
        if self._line is None or self._line.is_due():
            self.show()

    def show(self) -> None:
        """Show what the engines have done up to now."""
        for share in self._files:
            self.look(share)
        if self._records:
            self._update().show()

    def _update(self) -> ProgressLine:
        """The line, with the counts of now."""
        counts = self._counts()
        rows = self._committed.rows + self._stolen
        if self._line is None:
            self._end_loading()
            self._messages.loaded(time.monotonic() - self._started, {})
            self._line = ProgressLine(rows, counts.rows, counts.failed, counts.truncated, self._quiet)
        line = self._line
        line.total, line.done, line.failed, line.truncated = rows, counts.rows, counts.failed, counts.truncated
        sums = [sum(counts) for counts in zip(*self._generated.values(), strict=True)] or [0, 0, 0]
        line.generated_rows, line.generated_tokens, line.imageless_rows = sums
        slowest = [record.bottleneck for record in self._records.values() if record.bottleneck]
        line.bottleneck = max(slowest, key=slowest.count, default="")
        if line.generated_rows:
            self._messages.first_row()
        return line

    def _counts(self) -> OpenRows:
        """The rows that are done: those in committed shards, without what is to be done there again, and open ones."""
        committed, opened = self._committed, self._open_rows().values()
        return OpenRows(
            committed.rows + self._stolen + sum(s.rows for s in opened) - self._left_rows,
            committed.rows_failed + sum(s.failed for s in opened) - self._left_failed,
            committed.rows_truncated + sum(s.truncated for s in opened),
        )

    def _open_rows(self) -> Mapping[int, OpenRows]:
        """The finished rows of shards that are not whole yet; of one that two engines have had, the larger count."""
        found: dict[int, OpenRows] = {}
        for record in self._records.values():
            for shard, *counts in record.open_shards:
                if shard in self._left and (shard not in found or found[shard].rows < counts[0]):
                    found[shard] = OpenRows(*counts)
        return found

    def conclude(self) -> str:
        """End the line; the summary of the run.

        Raises:
            ShardError: a shard cannot be read.
            OSError: the folder cannot be read.
        """
        for share in self._files:
            self.look(share)
        self._committed.refresh()  # other processes may have committed some of the shards
        if not self._retry:
            missing = set(self._committed.missing())
            self._set_left({shard: rows for shard, rows in self._left.items() if shard in missing})
        self._stolen = 0  # rows of others count for them
        line = self._update()
        line.close()
        folder = self._job.store.folder
        self._messages.end(self._committed.with_failures(), line.truncated, line.imageless_rows, folder)
        return line.summary(folder) + accuracy(self._committed)

    def _end_loading(self) -> None:
        if self._loading is not None:
            self._loading.close()

    def close(self) -> None:
        """End the line without a summary."""
        self._end_loading()
        if self._line is not None:
            self._line.close()
