"""The LoRA adapters of a job: one for all rows, or those that its rows name."""

from collections.abc import Mapping

from run_batch.jobs.job.config_tables import JobTables
from run_batch.jobs.job.errors import JobError

# The name of the adapter of all rows.
OF_ALL_ROWS = "model.lora"


def adapter_paths(config: JobTables) -> Mapping[str, str]:
    """The path of each adapter as job.toml has it, by the name by which rows have it."""
    return {OF_ALL_ROWS: config.model.lora} if config.model.lora is not None else config.lora


def adapter_key(name: str) -> str:
    """The key of job.toml that names an adapter."""
    return name if name == OF_ALL_ROWS else f"lora.{name}"


def check_adapters(config: JobTables) -> None:
    """Check the keys that name adapters against each other.

    Raises:
        JobError: one of them does nothing, or names no path.
    """
    column = config.input.lora_column
    for name, path in config.lora.items():
        if not name or not isinstance(path, str) or not path:
            raise JobError(f"lora.{name} = {path!r}: expected a folder or Hub id (an adapter that rows may name)")
    if config.model.lora is not None and (column is not None or config.lora):
        other = "input.lora_column" if column is not None else "[lora]"
        raise JobError(
            f"model.lora is the adapter of all rows, {other} is for rows with adapters of their own: keep one"
        )
    if column is not None and not config.lora:
        raise JobError(f"input.lora_column = {column!r} needs a table [lora], which has a folder for each name in it")
    if config.lora and column is None:
        raise JobError("[lora] does nothing without input.lora_column, the column that names an adapter for a row")
