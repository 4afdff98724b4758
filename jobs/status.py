"""What has become of a job, told from the files of its output folder alone."""

import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

from run_batch.io.shards import ShardError, ShardStore
from run_batch.jobs.config import JobConfig
from run_batch.jobs.errors import JobError, RunError
from run_batch.jobs.journal import recover
from run_batch.jobs.mapped import RowFailure
from run_batch.jobs.plan import Plan
from run_batch.jobs.progress import PROGRESS_FILE, read_progress

# A run writes its progress every second; on a busy shared file system that can take a while to be seen.
_ALIVE_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class JobStatus:
    """Attributes:
    state: `not started`, `running`, `unfinished` or `complete`.
    rows: of the whole job.
    done: rows that are finished: committed, or in a journal.
    failed: those of them with an error.
    left: rows that are not done.
    shards, shards_done: shards of the job, and those committed.
    rows_per_second: of the last half minute; 0 when it does not run.
    bottleneck: what holds up the rest while it runs: `engine`, `mapping`, `input` or `output`; else empty.
    """

    state: str
    rows: int
    done: int
    failed: int
    left: int
    shards: int
    shards_done: int
    rows_per_second: float
    bottleneck: str

    def as_text(self) -> str:
        lines = [
            f"{self.state}: {self.done} of {self.rows} rows done, {self.failed} failed, {self.left} left",
            f"shards: {self.shards_done} of {self.shards} committed",
        ]
        if self.rows_per_second > 0:
            minutes = self.left / self.rows_per_second / 60
            lines.append(f"{self.rows_per_second:.1f} rows/s, about {minutes:.0f} min left")
        if self.bottleneck:
            lines.append(f"bottleneck: {self.bottleneck}")
        return "\n".join(lines)

    def as_json(self) -> str:
        return json.dumps(asdict(self))


def read_status(config: JobConfig) -> JobStatus:
    """The status of the job in its output folder.

    Raises:
        JobError: the folder holds something else.
        RunError: a shard or journal cannot be read.
    """
    store = ShardStore(config.output_folder)
    try:
        record = json.loads((store.run_folder / "job.json").read_text())
        plan = Plan(record["rows"], record["rows_per_shard"])
        hashed = record["job_hash"]
    except FileNotFoundError:
        return JobStatus("not started", 0, 0, 0, 0, 0, 0, 0.0, "")
    except (OSError, ValueError, KeyError) as error:
        raise JobError(f"{store.run_folder / 'job.json'} cannot be read: {error}") from None
    try:
        done, failed, shards_done = _finished(store, plan, hashed)
    except (ShardError, OSError) as error:
        raise RunError(str(error)) from None
    rate, bottleneck = 0.0, ""
    state = "complete" if store.is_complete() else "unfinished"
    progress = read_progress(store.run_folder / PROGRESS_FILE)
    if state == "unfinished" and progress is not None and time.time() - progress.updated < _ALIVE_SECONDS:
        state = "running"
        done, failed = max(done, progress.rows_done), max(failed, progress.rows_failed)
        rate, bottleneck = progress.rows_per_second, progress.bottleneck
    left = plan.num_rows - done
    return JobStatus(state, plan.num_rows, done, failed, left, plan.num_shards, shards_done, rate, bottleneck)


def _finished(store: ShardStore, plan: Plan, hashed: str) -> tuple[int, int, int]:
    """Rows done, rows failed, and shards committed."""
    # Journals before shards: a shard that is committed in between has its rows in both, and counts once.
    journalled = recover(store, hashed, plan, attempts=lambda shard: 0, owned=lambda shard: False).results
    committed = store.committed()
    with ThreadPoolExecutor(max_workers=16) as pool:
        failed = sum(info.failed for info in pool.map(store.info, committed))
    there = set(committed)
    others = [result for row, result in journalled.items() if row // plan.rows_per_shard not in there]
    failed += sum(isinstance(result, RowFailure) for result in others)
    return sum(len(plan.rows(shard)) for shard in committed) + len(others), failed, len(committed)
