"""Checks the sampling settings that a row brings; they are data, so their limits are narrower than a job's."""

import math
from collections.abc import Iterator, Mapping
from typing import Any

from run_batch.model.declaration import RowError

# Seeds and token ids are 64-bit numbers inside vLLM, which does not check for larger ones.
_LARGEST = 2**63 - 1


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
        raise RowError("sampling", f"n = {n}; a row may ask for {most} sequences at most, the job's sampling.n")
    for name in ("logprobs", "logprob_token_ids"):
        if own.get(name) is not None and job.get("logprobs") is None:
            raise RowError("sampling", f"{name}: the results have no column for it, the job sets no sampling.logprobs")


def _numbers(value: Any) -> Iterator[int | float]:
    if isinstance(value, int | float):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _numbers(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _numbers(item)
