"""`run-batch check`: checks everything about a job that can be known without starting an engine."""

from collections.abc import Iterator, Sequence
from contextlib import suppress

import pyarrow as pa

from run_batch.io.inputs.hub_commits import recorded_commits
from run_batch.io.inputs.source import RowBatch
from run_batch.io.media.image_column import image_cells, images_in
from run_batch.jobs.job.errors import EXIT_COMPLETE, EXIT_TOO_MANY_FAILURES, are_too_many, storage_errors
from run_batch.jobs.job.pooling import is_pooling
from run_batch.jobs.job.prepare import PreparedJob
from run_batch.jobs.job.prompt_column import is_message
from run_batch.jobs.job.row_reader import RowReader
from run_batch.jobs.job.rows import MappedRow, MappedRows, RowFailure
from run_batch.jobs.machine.memory import as_key, memory_there
from run_batch.jobs.mapping.mapping_faults import mapping_faults
from run_batch.jobs.mapping.row_mapper import RowMapper
from run_batch.jobs.mapping.row_watch import rows_watched
from run_batch.jobs.mapping.worker_pool import BATCH_ROWS
from run_batch.jobs.results.shard_commits import CommittedShards
from run_batch.model.checkpoint.generation_config import ResolvedSampling
from run_batch.model.checkpoint.settings import build_engine_args, build_sampling_params
from run_batch.model.plugin import announce_plugins, register


def check_job(job: PreparedJob) -> tuple[str, int]:
    """Map the first rows and describe the plan.

    Returns:
        Lines for people, and the exit code.

    Raises:
        JobError: the job cannot start.
        RunError: the input is damaged.
    """
    with mapping_faults():
        announce_plugins(job.config.model.plugins, job.config.folder)
        register()
        sampling = job.config.resolve_sampling()
        build_sampling_params(sampling.values)
        build_engine_args(job.config.model_settings)
        mapper = RowMapper(job.config, job.source.schema, job.media_root, job.prompt_column)
        batches = list(_first_rows(job))
        with rows_watched(job.config.errors.row_seconds):
            results = [result for batch in batches for result in mapper.map(batch)]
    with storage_errors(f"output.path {job.store.folder} cannot be read"):
        missing = len(CommittedShards(job.store, job.plan, job.shards).missing())
    shards = job.plan.num_shards
    lines = [
        f"input: {job.plan.num_rows} rows; columns {', '.join(job.source.schema.names)}",
        *_describe_commits(job),
        f"output: {shards} {'shard' if shards == 1 else 'shards'} of {job.plan.rows_per_shard} rows in "
        f"{job.store.folder}, {shards - missing} done, {missing} to do",
        *_describe_growth(job),
        *_describe_row_groups(job),
        *_describe_memory(job),
        *_describe_prompts(job),
        *([f"images: {mapper.image_mapping}"] if mapper.image_mapping else []),
        *([f"videos: {mapper.video_mapping}"] if _have_videos(job, results) else []),
        *([] if is_pooling(job.config) else _describe_sampling(sampling, mapper.max_model_len)),
        *_describe(results),
        *_describe_placeholders(job, mapper.image_placeholder, batches),
        *_describe_missing(job, "image", batches),
        *_describe_missing(job, "video", batches),
    ]
    failed = sum(isinstance(result, RowFailure) for result in results)
    most = job.config.errors.max_fraction
    if not are_too_many(failed, len(results), most):
        return "\n".join(lines), EXIT_COMPLETE
    lines.append(f"more of the first rows fail than errors.max_fraction = {most} allows")
    return "\n".join(lines), EXIT_TOO_MANY_FAILURES


def _describe_commits(job: PreparedJob) -> list[str]:
    """The commits at which repositories on the Hub are read."""
    if not any(path.startswith("hf://") for path in job.config.input_paths):
        return []
    return [f"input: {url} is read as {pinned}" for url, pinned in recorded_commits(job.source.index).items()]


def _describe_growth(job: PreparedJob) -> list[str]:
    """How many rows a job gets that the output folder does not know of."""
    added = job.plan.num_rows - job.recorded_rows
    if not job.is_replanned or added < 0:
        return []
    return [f"the folder holds {job.recorded_rows:,} rows of this job, done or planned; {added:,} will be added"]


def _describe_row_groups(job: PreparedJob) -> list[str]:
    """A note where row groups hold so many rows that shares cannot all begin with one."""
    if not job.plan.begins:
        return []
    return [
        f"note: row groups hold up to {job.plan.largest_group} rows, more than a shard; a share that begins inside "
        "one reads in vain what lies before"
    ]


def _describe_memory(job: PreparedJob) -> list[str]:
    """A note where a run would be refused on this machine, which need not be the one that the job is for."""
    memory, there = job.config.row_memory, memory_there()
    if memory is None or memory <= there:
        return []
    return [
        f"note: preprocess.memory, {as_key(memory)}, is more than this machine has, {as_key(there)}, or its cgroup or "
        "Slurm allow; a run is refused where that is so"
    ]


def _describe_prompts(job: PreparedJob) -> list[str]:
    """What the prompts are made of."""
    if not job.config.prompt.chat:
        return ["prompts: prompt.template alone"]
    if not is_message(job.config):
        return ["prompts: prompt.template as the user's message, in the chat template"]
    return [f"prompts: column {job.config.input.prompt_column} holds {job.prompt_column.value}, for the chat template"]


def _describe_sampling(sampling: ResolvedSampling, max_model_len: int) -> list[str]:
    """The sampling settings that result, and where each comes from."""
    shown = {
        name: "what the context leaves to the row" if value is None else repr(value)
        for name, value in sampling.values.items()
    }
    lines = [f"sampling.{name} = {value} ({sampling.sources[name]})" for name, value in sorted(shown.items())]
    if sampling.eos_token_ids:
        lines.append(f"tokens that end a text: {', '.join(map(str, sampling.eos_token_ids))} (generation config)")
    lines.append("other sampling settings: vLLM's defaults")
    most = sampling.values.get("max_tokens")
    if most is not None and most >= max_model_len:
        lines.append(
            f"note: sampling.max_tokens = {most} is more than the context holds, {max_model_len} tokens with the "
            "prompt (engine.max_model_len): a text that does not end before ends there, by length"
        )
    return lines


def _first_rows(job: PreparedJob) -> Iterator[RowBatch]:
    rows = min(BATCH_ROWS, job.plan.num_rows)
    return RowReader(job.config, job.source, BATCH_ROWS).read(range(rows))


def _describe_placeholders(job: PreparedJob, placeholder: str | None, batches: Sequence[RowBatch]) -> list[str]:
    """A note where rows hold the model's placeholder as text, as data made for training often does."""
    table = job.config.input
    if not placeholder or not table.image_column or job.config.prompt.image_marker is not None:
        return []
    others = {table.image_column, table.video_column, table.id_column, table.sampling_column}
    count = 0
    for batch in batches:
        for name in set(batch.records.schema.names) - others:
            # Rows with text that is not UTF-8 are errors of their own.
            with suppress(UnicodeDecodeError):
                count += sum(placeholder in str(value) for value in batch.records.column(name).to_pylist())
    if not count:
        return []
    return [
        f"note: {count} of the first texts hold {placeholder}, which is text there; with prompt.image_marker = "
        f'"{placeholder}" it stands for the row\'s next image'
    ]


def _describe_missing(job: PreparedJob, what: str, batches: Sequence[RowBatch]) -> list[str]:
    """A note where rows have no image, or no video, in the column of those: they are asked without one."""
    columns = {"image": job.config.input.image_column, "video": job.config.input.video_column}
    column = columns[what]
    how = "without it" if all(columns.values()) else "by their text alone"
    if not column:
        return []
    cells = [cell for batch in batches for cell in image_cells(batch.records.column(column))]
    count = sum(not list(images_in(cell)) for cell in cells if not isinstance(cell, pa.Scalar))
    if not count:
        return []
    return [
        f"note: {count} of the first {len(cells)} rows have no {what} in column {column}: they are asked {how}, "
        f"without the {what} placeholder"
    ]


def _have_videos(job: PreparedJob, results: MappedRows) -> bool:
    """Whether a column holds videos, or messages of the first rows do."""
    mapped = (row.engine_input.get("mm_placeholders") or {} for row in results if isinstance(row, MappedRow))
    return job.config.input.video_column is not None or any("video" in places for places in mapped)


def _describe(results: MappedRows) -> list[str]:
    mapped = [len(r.engine_input["prompt_token_ids"]) for r in results if isinstance(r, MappedRow)]
    failures = [r for r in results if isinstance(r, RowFailure)]
    lines = [f"first {len(results)} rows: {len(mapped)} can be mapped, {len(failures)} fail"]
    if mapped:
        lines.append(f"prompt tokens with image tokens: {min(mapped)} to {max(mapped)}")
    lines += [f"row {failure.row}: {failure.error}" for failure in failures[:5]]
    return lines
