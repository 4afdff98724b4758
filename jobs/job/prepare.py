"""A job that can start: its configuration held against its input and its output folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from run_batch.io.inputs.source import Source
from run_batch.io.outputs.shards import ShardStore
from run_batch.jobs.job.config import JobConfig
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.plan import (
    Plan,
    check_columns,
    check_ids,
    check_same_job,
    job_identity,
    make_plan,
    open_source,
    recorded_index,
)
from run_batch.jobs.job.shares import WHOLE_JOB, Share


@dataclass(frozen=True, slots=True)
class PreparedJob:
    """A job that can start: everything that is known without loading the model has been checked."""

    config: JobConfig
    source: Source
    plan: Plan
    store: ShardStore
    identity: dict[str, Any]
    share: Share = WHOLE_JOB

    @property
    def shards(self) -> range:
        """The shards of the share."""
        return self.share.shards(self.plan.num_shards)

    @property
    def missing_shards(self) -> list[int]:
        """Those of them that are not committed."""
        committed = set(self.store.committed())
        return [shard for shard in self.shards if shard not in committed]

    @property
    def media_root(self) -> Path | None:
        root = self.config.input.media_root
        return self.source.folder if root is None else Path(self.config.resolve(root))

    @property
    def num_rows(self) -> int:
        """Rows of the share."""
        return sum(len(self.plan.rows(shard)) for shard in self.shards)

    @property
    def rows_done(self) -> int:
        """Rows in committed shards of the share."""
        return self.num_rows - sum(len(self.plan.rows(shard)) for shard in self.missing_shards)

    @property
    def rows_failed(self) -> int:
        """Rows with an error in committed shards of the share."""
        return sum(self.store.info(shard).failed for shard in self.store.committed() if shard in self.shards)


def prepare(config: JobConfig, share: Share = WHOLE_JOB) -> PreparedJob:
    """Check a job against its input and its output folder.

    Args:
        share: the part of the job that is to be done here.

    Raises:
        JobError: the job cannot start.
    """
    store = ShardStore(config.output_folder, share.folder)
    # A run of the whole job looks at every file of the input. A thousand shares would do that a thousand times: each
    # looks at the files that it reads.
    source = open_source(config, recorded_index(store) if share.count > 1 else b"")
    check_columns(config, source.schema)
    root = config.input.media_root
    if root is not None and not Path(config.resolve(root)).is_dir():
        raise JobError(f"input.media_root {root}: no such folder")
    plan = make_plan(config, source)
    identity = job_identity(config, source)
    is_recorded = check_same_job(store, identity)
    if not store.is_writable():
        raise JobError(f"output.path {config.output.path}: {store.folder} cannot be written to")
    job = PreparedJob(config, source, plan, store, identity, share)
    if not is_recorded:
        check_ids(config, source, plan)
    return job
