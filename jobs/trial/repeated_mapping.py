"""Compares what mapping the same rows twice has given: token ids, tensors bit for bit, content hashes, placeholders.

A mapper that gives something else each time makes other results after a resume, and vLLM's caches, which know images by
their hashes, give a row the features of another.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import torch

from run_batch.jobs.job.rows import MappedRow, MappedRows, RowFailure

# A host that does not answer each time says nothing about the mapper.
_MAY_PASS = ("url_failed",)


def differences(first: MappedRows, second: MappedRows) -> dict[int, str]:
    """The rows that came out differently, each with what differs, in words.

    Args:
        first, second: the same rows in the same order.
    """
    found = {one.row: _of_rows(one, other) for one, other in zip(first, second, strict=True)}
    return {row: what for row, what in found.items() if what}


def _of_rows(one: MappedRow | RowFailure, other: MappedRow | RowFailure) -> str:
    if isinstance(one, MappedRow) and isinstance(other, MappedRow):
        what = _of_inputs(one.engine_input, other.engine_input)
        return what or ("" if one.sampling == other.sampling else "other sampling settings")
    failures = [result for result in (one, other) if isinstance(result, RowFailure)]
    kinds = {failure.kind for failure in failures}
    if (len(failures) == 2 and len(kinds) == 1) or any(kind in _MAY_PASS for kind in kinds):
        return ""
    return f"{_outcome(one)} the first time, {_outcome(other)} the second"


def _outcome(result: MappedRow | RowFailure) -> str:
    return f"the error {result.error}" if isinstance(result, RowFailure) else "no error"


def _of_inputs(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    ids, other_ids = one["prompt_token_ids"], other["prompt_token_ids"]
    if ids != other_ids:
        at = next((i for i, pair in enumerate(zip(ids, other_ids, strict=False)) if pair[0] != pair[1]), None)
        if at is None:
            return f"{len(ids)} prompt tokens the first time, {len(other_ids)} the second"
        return f"other token ids (token {at} is {ids[at]} the first time, {other_ids[at]} the second)"
    parts, other_parts = list(_parts(one)), list(_parts(other))
    names, other_names = [name for name, _ in parts], [name for name, _ in other_parts]
    if names != other_names:
        return f"{', '.join(names)} the first time, {', '.join(other_names)} the second"
    unlike = (_of_values(name, a, b) for (name, a), (_, b) in zip(parts, other_parts, strict=True))
    return next(filter(None, unlike), "")


def _parts(engine_input: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """All that belongs to a row's images, each with a name for people: tensors, placeholders, hashes."""
    for items in (engine_input.get("mm_kwargs") or {}).values():
        for item in items:
            for name, element in item.items():
                yield from ((name, value) for value in _leaves(element.data))
    for places in (engine_input.get("mm_placeholders") or {}).values():
        for place in places:
            yield "placeholders", (place.offset, place.length)
            yield "placeholders", place.is_embed
    for hashes in (engine_input.get("mm_hashes") or {}).values():
        yield "content hashes of its images", list(hashes)


def _leaves(value: Any) -> Iterator[Any]:
    """Tensors in lists, at any depth."""
    if isinstance(value, list | tuple):
        for part in value:
            yield from _leaves(part)
    else:
        yield value


def _of_values(name: str, one: Any, other: Any) -> str:
    if not (isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor)):
        return "" if one is other or one == other else f"other {name}"
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        forms = [f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}" for tensor in (one, other)]
        return f"{name} of {forms[0]} the first time, of {forms[1]} the second"
    bits = [tensor.cpu().contiguous().reshape(-1).view(torch.uint8) for tensor in (one, other)]
    if torch.equal(*bits):
        return ""
    unlike = int((one != other).sum())
    return (
        f"other {name} ({unlike:,} of {one.numel():,} values)" if unlike else f"other bits of {name}, of equal values"
    )
