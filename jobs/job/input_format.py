"""What keys of the input say of others: batch files of the API of OpenAI name their columns, and a job of videos needs
no images."""

from collections.abc import Mapping
from typing import Any

from run_batch.jobs.job.config_tables import JobTables
from run_batch.jobs.job.errors import JobError

# What input.format = "openai" sets in [input], where job.toml does not.
_OPENAI_INPUT: Mapping[str, str] = {
    "id_column": "custom_id",
    "prompt_column": "messages",
    "sampling_column": "sampling",
    "image_column": "",
}


def with_format(tables: dict[str, Any]) -> dict[str, Any]:
    """The tables of a job.toml with what the format of its input, or its videos, set where the job does not."""
    table, prompt = tables["input"], tables["prompt"]
    if isinstance(table, dict) and table.get("video_column") is not None:
        table = {"image_column": "", **table}
        tables = {**tables, "input": table}
    if not isinstance(table, dict) or not isinstance(prompt, dict) or table.get("format") != "openai":
        return tables
    return {**tables, "input": {**_OPENAI_INPUT, **table}, "prompt": {"chat": True, **prompt}}


def check_input_format(config: JobTables) -> None:
    """Refuse what does not fit the format.

    Raises:
        JobError: the input holds conversations, and the job makes none.
    """
    if config.input.format == "openai" and not config.prompt.chat:
        raise JobError('input.format = "openai" holds conversations: prompt.chat = false does not fit it; leave it out')
