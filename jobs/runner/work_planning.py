"""What a run has to generate, derived from what is committed."""

from run_batch.io.coordination.claims import Claims
from run_batch.io.outputs.shards import ShardStore
from run_batch.jobs.job.plan import Plan
from run_batch.jobs.job.work import Left, Work
from run_batch.jobs.results.shard_commits import Commit, CommittedShards, read_commit


def missing_work(committed: CommittedShards) -> Work:
    """Every shard of a share that is not committed, and the rows that are missing in those that are."""
    left = {commit.shard: _rest(committed.plan, commit) for commit in committed.short()}
    return Work(committed.plan, committed.missing(), left=left)


def failed_work(store: ShardStore, committed: CommittedShards) -> Work:
    """Every committed row of a share that has an error.

    Raises:
        ShardError: a shard cannot be read.
    """
    left: dict[int, Left] = {}
    for commit in committed.with_failures():
        errors = store.read(commit.shard, ["error"])["error"]
        first = committed.plan.rows(commit.shard).start
        failed = [first + i for i, error in enumerate(errors.to_pylist()) if error is not None]
        left[commit.shard] = Left(failed, commit.attempt + 1)
    return Work(committed.plan, list(left), True, left)


def look_at(work: Work, store: ShardStore, shard: int) -> Left | None:
    """What is left of a shard now; None where it is committed with all that the work is about. Looks at the folder each
    time.

    Raises:
        ShardError: the shard cannot be read.
    """
    if work.is_retry and shard in work.left:
        left = work.left[shard]
        return left if read_commit(store, shard).attempt < left.attempt else None
    if not store.is_committed(shard):
        return Left(work.plan.rows(shard))
    if work.is_retry or shard not in work.plan.cut:
        return None
    commit = read_commit(store, shard)
    return _rest(work.plan, commit) if commit.rows < len(work.plan.rows(shard)) else None


def begin_shard(work: Work, store: ShardStore, claims: Claims, shard: int) -> Left | None:
    """Claim a shard that is still to be committed, and note what is left of it; None where another process has it, or
    has committed it since it was listed.

    Raises:
        ShardError: the shard cannot be read.
        OSError: the folder cannot be written to.
    """
    if not claims.take(shard):
        return None
    left = look_at(work, store, shard)
    if left is None:
        claims.release(shard)
    elif left.attempt:
        work.left[shard] = left
    else:
        work.left.pop(shard, None)
    return left


def _rest(plan: Plan, commit: Commit) -> Left:
    """The rows that a committed shard does not have yet."""
    return Left(plan.rows(commit.shard)[commit.rows :], commit.attempt + 1)
