"""What a run has to generate, derived from what is committed."""

from run_batch.io.outputs.shards import ShardStore
from run_batch.jobs.job.work import Work
from run_batch.jobs.results.shard_commits import CommittedShards, read_commit


def missing_work(committed: CommittedShards) -> Work:
    """Every shard of a share that is not committed."""
    return Work(committed.plan, committed.missing())


def failed_work(store: ShardStore, committed: CommittedShards) -> Work:
    """Every committed row of a share that has an error.

    Raises:
        ShardError: a shard cannot be read.
    """
    retried: dict[int, list[int]] = {}
    attempts: dict[int, int] = {}
    for commit in committed.with_failures():
        errors = store.read(commit.shard, ["error"])["error"]
        first = committed.plan.rows(commit.shard).start
        retried[commit.shard] = [first + i for i, error in enumerate(errors.to_pylist()) if error is not None]
        attempts[commit.shard] = commit.attempt + 1
    return Work(committed.plan, list(retried), retried, attempts)


def next_attempt(work: Work, store: ShardStore, shard: int) -> int | None:
    """By which attempt a shard is to be committed; None where it is committed already. Looks at the folder each time.

    Raises:
        ShardError: the shard cannot be read.
    """
    if shard not in work.retried:
        return None if store.is_committed(shard) else 0
    attempt = work.attempt(shard)
    return attempt if read_commit(store, shard).attempt < attempt else None
