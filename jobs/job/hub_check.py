"""Finds out whether what a job names on the Hub can be had, before anything is loaded."""

import logging
from collections.abc import Iterator

from run_batch.jobs.job.config import JobConfig
from run_batch.jobs.job.errors import JobError, MayPassError
from run_batch.model.checkpoint.adapters import CONFIG as ADAPTER_CONFIG
from run_batch.model.checkpoint.hub import HubError, check_on_hub, is_hub_id
from run_batch.model.checkpoint.hub_access import hub_trouble

_LOG = logging.getLogger(__name__)


def check_hub(config: JobConfig) -> None:
    """Check all that the job names on the Hub but its input.

    Raises:
        JobError: it is not there, or may not be read.
        MayPassError: the Hub does not answer, and there is no copy on this machine.
    """
    for key, path, revision, file in _named(config):
        if not is_hub_id(path):
            continue
        try:
            check_on_hub(path, revision, file)
        except HubError as error:
            kind = MayPassError if error.passes else JobError
            raise kind(f"{key} {path}: {error}") from error
        trouble = hub_trouble(path)
        if trouble:
            _LOG.warning("%s %s: %s; the copy in the cache on this machine is used", key, path, trouble)


def _named(config: JobConfig) -> Iterator[tuple[str, str, str | None, str]]:
    """Keys, ids or paths, revisions, and a file that each has."""
    settings, engine = config.model_settings, config.engine
    yield "model.path", settings.path, engine.get("revision"), "config.json"
    tokenizer = engine.get("tokenizer")
    if isinstance(tokenizer, str):
        yield "engine.tokenizer", config.resolve(tokenizer), engine.get("tokenizer_revision"), "tokenizer_config.json"
    for key, path in settings.adapters.items():
        yield key, path, None, ADAPTER_CONFIG
