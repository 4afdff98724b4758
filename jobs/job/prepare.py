"""A job that can start: its configuration checked against its input and its output folder."""

from dataclasses import dataclass, replace

from run_batch.io import transient
from run_batch.io.inputs.input_parts import first_rows
from run_batch.io.inputs.source import Source
from run_batch.io.media.media_root import MediaRoot
from run_batch.io.outputs.remote_folder import RemoteError, remote_folder
from run_batch.io.outputs.shards import ShardStore
from run_batch.io.transient import retry
from run_batch.jobs.job.columns import check_columns
from run_batch.jobs.job.config import JobConfig, named_content
from run_batch.jobs.job.content import versions
from run_batch.jobs.job.errors import JobError, MayPassError, storage_errors
from run_batch.jobs.job.find_record import find_record, is_planned
from run_batch.jobs.job.hub_check import check_hub
from run_batch.jobs.job.job_identity import as_recorded, job_identity
from run_batch.jobs.job.job_record import record_job
from run_batch.jobs.job.media_places import check_media, media_root_of
from run_batch.jobs.job.media_sample import sample_media
from run_batch.jobs.job.open_input import open_source
from run_batch.jobs.job.plan import Plan, make_plan
from run_batch.jobs.job.prompt_column import PromptColumn, find_prompt_column
from run_batch.jobs.job.recorded_config import record_config
from run_batch.jobs.job.recorded_job import JobRecord, recorded_index
from run_batch.jobs.job.row_ids import check_ids
from run_batch.jobs.job.shares import WHOLE_JOB, Share


@dataclass(frozen=True, slots=True)
class PreparedJob:
    """A job that can start: everything that is known without loading the model has been checked.

    Attributes:
        record: what its output folder is to record of it.
        recorded_rows: rows of this job that its output folder has recorded already; 0 for a job that is new there.
        is_replanned: whether it has others than those now.
    """

    config: JobConfig
    source: Source
    store: ShardStore
    record: JobRecord
    share: Share = WHOLE_JOB
    prompt_column: PromptColumn = PromptColumn.TEXTS
    recorded_rows: int = 0
    is_replanned: bool = False

    @property
    def plan(self) -> Plan:
        """The plan of the whole job."""
        return self.record.plan

    @property
    def shards(self) -> range:
        """The shards of the share."""
        return self.share.shards(self.plan)

    @property
    def media_root(self) -> MediaRoot | None:
        """The folder that image paths are inside of; None where paths are not allowed."""
        return media_root_of(self.config, self.source)

    def write_record(self) -> "PreparedJob":
        """Record the job in its output folder, as far as it is not; the job with the plan that is recorded.

        Raises:
            JobError: the folder belongs to another job by now, or the job cannot go on with the input that it has now.
            OSError: the folder cannot be written to.
        """
        try:
            plan = record_job(self.store, self.record, self.source.index)
        except JobError:
            # Another process may have given the job more rows since: this one does what it has begun with.
            if self.recorded_rows and not self.is_replanned and is_planned(self.store, self.record):
                return self
            raise
        record_config(self.store, self.config)
        record = replace(self.record, plan=plan)
        return replace(self, record=record, recorded_rows=plan.num_rows, is_replanned=False)


def prepare(config: JobConfig, share: Share = WHOLE_JOB, *, writes: bool = True) -> PreparedJob:
    """Check a job against its input and its output folder.

    Args:
        share: the part of the job that this process works on.
        writes: whether results will be written. If not, the output folder is not looked at, whatever it holds; nor are
            the ids of all rows, which are checked before a job is recorded there.

    Raises:
        JobError: the job cannot start.
        RunError: the input is damaged; or storage or network fail.
    """
    store = ShardStore(config.output_folder, share.folder)
    check_hub(config)
    # A run of the whole job looks at every file of the input. A thousand shares would do that a thousand times: each
    # looks at the files that it reads.
    source = open_source(
        config, recorded_index(store) if writes or share.count > 1 else b"", looks_again=share.count == 1
    )
    check_columns(config, source)
    prompt_column = find_prompt_column(config, source)
    check_media(config, source, prompt_column)
    record = describe_job(config, source, prompt_column)
    job = PreparedJob(config, source, store, record, share, prompt_column)
    if not writes:
        return job
    job = _fit_into_folder(job)
    _check_upload(config)
    return job


def describe_job(config: JobConfig, source: Source, prompt_column: PromptColumn = PromptColumn.TEXTS) -> JobRecord:
    """What the output folder of a job is to record of it.

    Raises:
        JobError: the input has no rows, or a file that the job names cannot be read.
        RunError: the input is damaged.
    """
    plan = make_plan(config, source)
    return JobRecord(
        identity=job_identity(config, source, prompt_column),
        plan=plan,
        parts=tuple(first_rows(source.parts, plan.num_rows)),
        named=as_recorded(named_content(config)),
        media=sample_media(config, source, prompt_column, media_root_of(config, source)),
        versions=(versions(),),
    )


def _fit_into_folder(job: PreparedJob) -> PreparedJob:
    """Check a job against what its output folder holds, and the ids of its rows where they are new there."""
    store, config = job.store, job.config
    with storage_errors(f"output.path {store.folder} cannot be read"):
        recorded = find_record(store, job.record)
        is_writable = store.is_writable()
    if not is_writable:
        raise JobError(f"output.path {config.output.path}: {store.folder} cannot be written to")
    has_new_rows = recorded is None or recorded.parts != job.record.parts
    if has_new_rows:
        check_ids(config, job.source, job.plan)
    if recorded is None:
        return job
    plan = job.plan.following(recorded.plan) if has_new_rows else recorded.plan
    record = replace(job.record, plan=plan)
    return replace(job, record=record, recorded_rows=recorded.plan.num_rows, is_replanned=has_new_rows)


def _check_upload(config: JobConfig) -> None:
    """Find out whether output.upload can be written to.

    Raises:
        JobError: it cannot, or its package is not installed.
        MayPassError: it cannot be reached.
    """
    url = config.output.upload
    if url is None:
        return
    try:
        retry(remote_folder(url).check, transient.REMOTE_PAUSES)
    except RemoteError as error:
        kind = MayPassError if error.passes else JobError
        raise kind(f"output.upload: {error}") from error
