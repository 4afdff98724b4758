"""Opens what a run writes to: journal, shards, progress and metrics of a share, in its output folder."""

import contextlib
import json
from collections.abc import Mapping

from run_batch.io.coordination.claims import Claims, claimed
from run_batch.io.outputs.journal import JournalWriter
from run_batch.io.transient import retry
from run_batch.jobs.job.content import versions
from run_batch.jobs.job.errors import JobError, storage_errors
from run_batch.jobs.job.job_record import withdraw_record
from run_batch.jobs.job.prepare import PreparedJob
from run_batch.jobs.job.rows import PooledForm
from run_batch.jobs.job.work import Work
from run_batch.jobs.results.journal_files import segment_name, segments, writer_name
from run_batch.jobs.results.journal_rows import JournalRow, encode_rows
from run_batch.jobs.results.result_table import ShardTables
from run_batch.jobs.results.shard_commits import Commit, CommittedShards
from run_batch.jobs.results.shard_writer import ShardWriter
from run_batch.jobs.runner.finished_rows import FinishedRows
from run_batch.jobs.runner.uploads import Uploads
from run_batch.jobs.runner.work_planning import look_at
from run_batch.jobs.watch.metrics import METRICS_FILE, Metrics
from run_batch.jobs.watch.progress import PROGRESS_FILE, Progress
from run_batch.jobs.watch.run_end import END_FILE, RUNS_FILE


def open_output(
    job: PreparedJob,
    work: Work,
    committed: CommittedShards,
    claims: Claims,
    metadata: Mapping[str, str],
    quiet: bool,
    uploads: Uploads | None = None,
    pooled: PooledForm | None = None,
) -> FinishedRows:
    """Make the output folder ready, and start the threads that write to it.

    Args:
        committed: of the share; what this run commits is counted there.
        claims: released shard by shard as they are committed.
        metadata: what the footer of each shard says of the job.
        quiet: show no progress.
        uploads: gets each shard that is committed.
        pooled: what a pooling model gives of each row.

    Raises:
        JobError: the folder belongs to another job by now.
        RunError: the folder cannot be written to.
    """
    store, writer = job.store, writer_name()
    with storage_errors(f"output.path {store.folder} cannot be written to"):
        store.discard_unfinished()
        if not retry(store.journal_folder.is_dir):  # asked first: a thousand shares need not try to make it
            store.journal_folder.mkdir(exist_ok=True)
        # Recorded before anything was loaded; since then, a share that could not begin may have withdrawn the record.
        job.write_record()
    journal = _open_journal(job, writer)

    def on_commit(commit: Commit) -> None:
        committed.add(commit)
        journal.settle(commit.shard)
        claims.release(commit.shard)
        if uploads is not None:
            uploads.add(commit.shard)

    def is_wanted(shard: int) -> bool:
        return shard in work.left if work.is_retry else look_at(work, store, shard) is not None

    tables = ShardTables(job.config, job.source, work, is_wanted, pooled)
    shards = ShardWriter(work, tables, store, metadata, job.config.output.compression, on_commit)
    retried = sum(map(len, map(work.rows, work.shards))) if work.is_retry else 0
    done, failed = committed.rows_done - retried, committed.rows_failed - retried
    file, truncated = store.own_folder / PROGRESS_FILE, committed.rows_truncated
    progress = Progress(committed.rows, done, failed, truncated, file, writer, quiet)
    progress.write()
    return FinishedRows(work, journal, shards, progress, Metrics(store.own_folder / METRICS_FILE))


def result_metadata(job: PreparedJob) -> dict[str, str]:
    """What the footer of every shard says of the job that made it."""
    import vllm

    return {
        "run_batch.job_hash": job.record.job_hash,
        "run_batch.model": job.config.model.path,
        "run_batch.vllm_version": vllm.__version__,
        "run_batch.version": versions()["run-batch"],
        "run_batch.sampling": json.dumps(job.config.resolve_sampling().values, sort_keys=True, default=str),
    }


def _open_journal(job: PreparedJob, writer: str) -> JournalWriter[JournalRow]:
    """Start the journal of this process, whose files are named after its share and its shards."""
    own = job.shards  # looked up once: the journal asks for each row

    def segment(shard: int) -> str:
        shards = own if shard in own else range(shard, shard + 1)
        return segment_name(shards, job.share.label, writer)

    return JournalWriter[JournalRow](job.store.journal_folder, segment, job.record.job_hash, encode_rows)


def withdraw(job: PreparedJob) -> None:
    """Remove what a job that could not begin has written, so that the corrected job may take its folder.

    Nothing is removed once there are results, while other processes work on the job, or where another job is recorded.
    """
    store = job.store
    with contextlib.suppress(OSError, JobError):
        if store.committed() or claimed(store.run_folder) or segments(store):
            return
        withdraw_record(store, job.record)
        for name in (PROGRESS_FILE, METRICS_FILE, END_FILE, RUNS_FILE):
            (store.own_folder / name).unlink(missing_ok=True)
        store.journal_folder.rmdir()
