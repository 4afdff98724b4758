"""A tokenizer that tokenizes an equal text once.

The processors of some models write a text for each image, with as many image tokens as its size takes, and tokenize it
once or twice only to drop the result. Such texts are the same for all images of a size.
"""

import copy
from collections.abc import Mapping
from enum import Enum
from typing import Any

import numpy as np
import torch
from transformers import BatchEncoding, PreTrainedTokenizerBase

from run_batch.model.rendering.lru_cache import LruCache

# Of what a tokenizer gives for one token, with the characters that it stands for.
_TOKEN_BYTES = 200


def remembering(tokenizer: Any, max_bytes: int) -> Any:
    """A copy of a tokenizer that keeps what it gives for the last texts.

    Args:
        tokenizer: one that is not of transformers is given back as it is.
        max_bytes: that these texts may take.
    """
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        return tokenizer
    kept: LruCache[BatchEncoding] = LruCache(max_bytes)

    class RememberingTokenizer(type(tokenizer)):  # type: ignore[misc]
        def __call__(self, *texts: Any, **settings: Any) -> Any:
            key = _key(texts, settings)
            found = None if key is None else kept.get(key)
            if found is not None:
                return _own(found)
            encoded = super().__call__(*texts, **settings)
            if key is not None and type(encoded) is BatchEncoding:
                kept.put(key, _own(encoded), _nbytes(encoded))
            return encoded

    RememberingTokenizer.__name__ = type(tokenizer).__name__
    remembers = copy.copy(tokenizer)
    remembers.__class__ = RememberingTokenizer
    return remembers


def _key(texts: tuple[Any, ...], settings: Mapping[str, Any]) -> str | None:
    """All that a call depends on; None where that cannot be told."""
    values = [*texts, *settings.values()]
    for value in values:
        values += value if isinstance(value, list | tuple) else ()
    plain = (str, int, float, Enum, list, tuple, type(None))
    return repr((texts, sorted(settings.items()))) if all(isinstance(value, plain) for value in values) else None


def _own(encoded: BatchEncoding) -> BatchEncoding:
    """A copy that its user may change."""
    own = copy.copy(encoded)
    own.data = {name: _copied(values) for name, values in encoded.data.items()}
    return own


def _copied(values: Any) -> Any:
    if isinstance(values, torch.Tensor):
        return values.clone()
    if isinstance(values, np.ndarray):
        return values.copy()
    return [_copied(value) if isinstance(value, list) else value for value in values]


def _nbytes(encoded: BatchEncoding) -> int:
    ids = encoded.data.get("input_ids", ())
    tokens = sum(len(row) if hasattr(row, "__len__") else 1 for row in ids)
    return _TOKEN_BYTES * tokens
