"""A row's own sampling settings: its seed, and what its cell of `input.sampling_column` sets.

Such a cell is data, so its limits are narrower than those of the job's settings.
"""

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

from run_batch.model.checkpoint.settings import SettingsError, build_sampling_params
from run_batch.model.declaration import RowError

# Seeds and token ids are 64-bit numbers inside vLLM, which does not check for larger ones.
_LARGEST = 2**63 - 1


def row_sampling(job: Mapping[str, Any], row_id: str, cell: Any) -> dict[str, Any]:
    """The settings of one row that win over the job's.

    Args:
        job: the job's settings.
        row_id: of the row.
        cell: the row's cell of the sampling column: a struct or JSON text; None for none.

    Raises:
        RowError: `sampling`, for a cell of another form, or a setting that vLLM refuses or cannot take from a row.
    """
    settings: dict[str, Any] = {}
    if job.get("seed") is not None:
        settings["seed"] = row_seed(job["seed"], row_id)
    own = _own_settings(cell)
    if own:
        check_own_sampling(own, job)
        settings.update(own)
        try:
            build_sampling_params({**job, **settings})
        except SettingsError as error:
            raise RowError("sampling", str(error)) from None
    return settings


def row_seed(seed: int, row_id: str) -> int:
    """The seed of a row: it depends on the job's seed and the row's id alone, not on batches, order or shards."""
    digest = hashlib.blake2b(f"{seed}:{row_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def check_own_sampling(own: Mapping[str, Any], job: Mapping[str, Any]) -> None:
    """Refuse settings that vLLM accepts, and that make it fail later or take time from other rows.

    Args:
        own: the row's settings.
        job: the job's settings.

    Raises:
        RowError: `sampling`, for a number that is not finite or exceeds 64 bits, `n` above the job's, or log
            probabilities where the job's results have no column for them.
    """
    for number in _numbers(own):
        if isinstance(number, float) and not math.isfinite(number):
            raise RowError("sampling", "a setting is infinite or not a number")
        if abs(number) > _LARGEST:
            raise RowError("sampling", "a setting is a number of more than 64 bits")
    n, most = own.get("n"), job.get("n") or 1
    if isinstance(n, int) and n > most:
        raise RowError("sampling", f"n = {n}; a row may ask for {most} at most, the job's sampling.n: set that to {n}")
    for name in ("logprobs", "logprob_token_ids"):
        if own.get(name) is not None and job.get("logprobs") is None:
            raise RowError("sampling", f"{name}: the results have no column for it; set sampling.logprobs for the job")
    if own.get("prompt_logprobs") is not None and job.get("prompt_logprobs") is None:
        raise RowError(
            "sampling", "prompt_logprobs: the results have no column for it; set sampling.prompt_logprobs for the job"
        )


def _numbers(value: Any) -> Iterator[int | float]:
    if isinstance(value, int | float):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _numbers(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _numbers(item)


def _own_settings(cell: Any) -> dict[str, Any]:
    """The settings in a row's cell; nulls count as not set."""
    if isinstance(cell, str):
        try:
            cell = json.loads(cell)
        except (ValueError, RecursionError) as error:
            raise RowError("sampling", f"not JSON: {error}") from None
    if cell is None:
        return {}
    if not isinstance(cell, dict):
        raise RowError("sampling", f"expected settings by name, found {type(cell).__name__}")
    return {name: setting for name, setting in cell.items() if setting is not None}
