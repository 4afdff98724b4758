"""Shares that do everything a run does about shards (plan, lease, claim, journal, commit, help, complete) and generate
no rows: the table of each shard is ready.
"""

import itertools
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
from counted import Operations

from run_batch.io.coordination.claims import Claims
from run_batch.io.outputs.journal import JournalWriter
from run_batch.jobs.job.config import load_config
from run_batch.jobs.job.prepare import PreparedJob, prepare
from run_batch.jobs.job.rows import Generation
from run_batch.jobs.job.shares import Share
from run_batch.jobs.results.journal_files import segment_name, writer_name
from run_batch.jobs.results.journal_rows import JournalRow, encode_rows
from run_batch.jobs.results.shard_commits import Commit, CommittedShards, footer_of, record_commit
from run_batch.jobs.runner.job_completion import complete_job
from run_batch.jobs.runner.resume import resume
from run_batch.jobs.runner.shard_assignment import ShardAssignment, next_work
from run_batch.jobs.runner.share_lease import output_folder, share_lease


@dataclass(frozen=True)
class Done:
    """What a share did: shards it committed, seconds and calls before the first, calls in all, and the paths of other
    files than its own that it created, renamed to or removed.
    """

    shards: int
    planning_seconds: float
    planning_operations: int
    operations: int
    changed: list[str]


def run_share(config_path: Path, index: int, count: int, dies_after: int | None, report: Path) -> None:
    """One share; ends the process in the middle of shard number `dies_after`."""
    operations = Operations(config_path.parent, config_path.parent / "out")
    operations.listen()
    started = time.monotonic()
    job = prepare(load_config(config_path), Share(index, count))
    committed = CommittedShards(job.store, job.plan, job.shards)
    with output_folder(job.store), share_lease(job.store, job.share) as lease:
        claims = Claims(job.store.run_folder, lease)
        work = next_work(committed, job.share, job.store, claims)
        assert work is not None
        resume(job, work, claims)
        planned, before = time.monotonic() - started, operations.total
        done = commit_shards(job, ShardAssignment(work, job.share, job.store, claims), claims, dies_after)
    complete_job(job, again=False)
    changed = [path for path in operations.changed if not path.startswith(f"{job.store.own_folder}/")]
    result = Done(done, planned, before, operations.total, changed)
    report.write_text(json.dumps(asdict(result)))


def commit_shards(job: PreparedJob, assignment: ShardAssignment, claims: Claims, dies_after: int | None) -> int:
    folder, writer = job.store.journal_folder, writer_name()
    if not folder.is_dir():
        folder.mkdir(exist_ok=True)
    job.write_record()

    def segment(shard: int) -> str:
        return segment_name(job.shards, job.share.label, writer)

    journal = JournalWriter[JournalRow](folder, segment, job.record.job_hash, encode_rows)
    done = 0
    for shard in itertools.chain(assignment.own(), assignment.stolen()):
        rows = job.plan.rows(shard)
        journal.append(shard, (0, Generation(rows.start, ("text",), "stop", 1, 1)))
        if done == dies_after:
            time.sleep(0.2)
            os._exit(9)
        commit = Commit(shard, 0, len(rows), len(rows), len(rows), time=time.time())
        record_commit(job.store, commit)
        job.store.commit(shard, shard_table(rows), footer_of(commit))
        journal.settle(shard)
        claims.release(shard)
        done += 1
    journal.close()
    return done


def shard_table(rows: range) -> pa.Table:
    ones = pa.repeat(pa.scalar(1, pa.int32()), len(rows))
    return pa.table(
        {
            "row_id": pa.array(range(rows.start, rows.stop)),
            "error": pa.nulls(len(rows), pa.string()),
            "prompt_tokens": ones,
            "generated_tokens": ones,
        }
    )
