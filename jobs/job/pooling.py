"""Jobs whose model gives numbers of a prompt and no text: `engine.runner = "pooling"`."""

from collections.abc import Mapping
from typing import Any

from run_batch.jobs.job.config_tables import JobTables
from run_batch.jobs.job.errors import JobError

# Fields of vLLM's PoolerConfig that its own front end reads, and its engine does not.
_OF_THE_FRONT_END = ("enable_chunked_processing", "max_embed_len", "enable_flash_late_interaction")


def is_pooling(config: JobTables) -> bool:
    """Whether the job's model gives embeddings or scores."""
    return config.engine.get("runner") == "pooling"


def _check_generating(engine: Mapping[str, Any]) -> None:
    for key in ("convert", "pooler_config"):
        if engine.get(key) not in (None, "auto", "none"):
            raise JobError(f'engine.{key} does nothing without engine.runner = "pooling": the job generates text')


def check_pooling(config: JobTables) -> None:
    """Refuse settings that do nothing for pooling models, and those that do nothing for others.

    Raises:
        JobError: names the key.
    """
    engine = config.engine
    if engine.get("runner") not in (None, "generate", "pooling"):
        raise JobError(f"engine.runner = {engine['runner']!r}: expected 'generate' or 'pooling'")
    if not is_pooling(config):
        _check_generating(engine)
        return
    settings: dict[str, Any] = {f"sampling.{key}": value for key, value in config.sampling.items()}
    settings |= {
        "input.sampling_column": config.input.sampling_column,
        "errors.expected_column": config.errors.expected_column,
        "prompt.prefill": config.prompt.prefill,
        "output.extra": config.output.extra or None,
    }
    named = next((key for key, value in settings.items() if value is not None), None)
    if named is not None:
        raise JobError(f'{named} does nothing with engine.runner = "pooling", where no text is generated; remove it')
    pooler = engine.get("pooler_config")
    unread = [key for key in _OF_THE_FRONT_END if isinstance(pooler, Mapping) and pooler.get(key) is not None]
    if unread:
        raise JobError(f"engine.pooler_config.{unread[0]} does nothing here: it is for vLLM's own front end")
