"""The results folder of a job that people look at: named by job.toml, or by itself, as where it is a copy."""

from dataclasses import dataclass
from pathlib import Path

from run_batch.io.outputs.shards import ShardStore
from run_batch.jobs.job.config import JobConfig
from run_batch.jobs.job.errors import JobError, storage_errors
from run_batch.jobs.job.recorded_config import recorded_config
from run_batch.jobs.job.recorded_job import read_recorded_job


@dataclass(frozen=True, slots=True)
class JobFolder:
    """A results folder.

    Attributes:
        config: the job.toml, given or recorded; None where the folder records none that can be used here.
    """

    store: ShardStore
    config: JobConfig | None

    @classmethod
    def of(cls, config: JobConfig) -> "JobFolder":
        """The folder that a job.toml names."""
        return cls(ShardStore(config.output_folder), config)

    @classmethod
    def at(cls, path: Path) -> "JobFolder":
        """The results folder at a path.

        Raises:
            JobError: no job is recorded there.
            RunError: it cannot be read.
        """
        store = ShardStore(path.absolute())
        with storage_errors(f"{path} cannot be read"):
            if path.is_file():
                raise JobError(f"{path} is a file; name the results folder, or a job.toml by --config {path}")
            if not path.is_dir():
                raise JobError(f"{path}: no such folder")
            if read_recorded_job(store) is None:
                raise JobError(f"{path} holds no job of run-batch: {store.run_folder.name}/job.json is not in it")
            return cls(store, recorded_config(store))

    @property
    def upload(self) -> str | None:
        """`output.upload`."""
        return self.config.output.upload if self.config is not None else None
