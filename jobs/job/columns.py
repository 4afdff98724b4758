"""The columns of the input that a job reads, and the settings of its model."""

import pyarrow as pa

from run_batch.jobs.job.config import JobConfig
from run_batch.jobs.job.prompt_template import parse_template
from run_batch.model.checkpoint.settings import ModelSettings


def model_settings(config: JobConfig) -> ModelSettings:
    """The settings by which vLLM's classes are built for this job: [model] with an absolute path, and [engine]."""
    return ModelSettings(
        path=config.resolve(config.model.path),
        architecture=config.model.architecture,
        engine=config.engine,
        trust_remote_code=config.model.trust_remote_code,
    )


def needed_columns(config: JobConfig, schema: pa.Schema) -> list[str]:
    """The input columns that mapping reads."""
    table = config.input
    columns = [table.image_column, table.id_column, table.sampling_column]
    if config.prompt.chat:
        columns.append(table.prompt_column)
    else:
        columns += parse_template(config.prompt.template, table.prompt_column, schema).columns
    return list(dict.fromkeys(column for column in columns if column))
