"""The names of the columns that run-batch adds to carried ones: those of every job, and those that a job asks for.

Their types and values are in `jobs/results/generated_columns.py`.
"""

from run_batch.jobs.job.config_tables import EXTRA_COLUMNS, JobTables
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.pooling import is_pooling

# Names that no job may carry a column under, whether or not it has these result columns itself.
_RESERVED = (
    "row_id",
    "text",
    "texts",
    "finish_reason",
    "finish_reasons",
    "prompt_tokens",
    "generated_tokens",
    "error",
    "matches_expected",
    "logprobs",
)


def result_columns(config: JobTables) -> tuple[str, ...]:
    """The names that result columns of a job take, or may take: a carried column has another one."""
    pooled = ("embedding", "score", "probs") if is_pooling(config) else ()
    return (*_RESERVED, *(name for name in EXTRA_COLUMNS if name in config.output.extra), *pooled)


def check_extra(config: JobTables) -> None:
    """Check `output.extra` against the sampling settings that give it something to hold.

    Raises:
        JobError: a column is named twice, would be empty, or is missing for what `sampling` asks for.
    """
    extra, prompt_logprobs = config.output.extra, config.sampling.get("prompt_logprobs")
    if len(set(extra)) < len(extra):
        raise JobError(f"output.extra = {list(extra)}: a column is named twice")
    is_asked = prompt_logprobs is not None and prompt_logprobs is not False
    if "prompt_logprobs" in extra and not is_asked:
        raise JobError(
            "output.extra: the column prompt_logprobs stays empty without sampling.prompt_logprobs, the number of "
            "candidates of each token of the prompt; set it, or remove the column"
        )
    if is_asked and "prompt_logprobs" not in extra:
        raise JobError(
            'sampling.prompt_logprobs needs output.extra = ["prompt_logprobs"]: the results have no column for it '
            "otherwise"
        )
