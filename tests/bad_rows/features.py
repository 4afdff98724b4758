"""Precomputed features that the model cannot take."""

import io
import random
import struct
from collections.abc import Callable

import numpy as np
import torch
from safetensors.torch import save

from bad_rows.row import HIDDEN_SIZE, BadRow, Make, case, of_bytes


def npy(array: np.ndarray, pickled: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=pickled)
    return buffer.getvalue()


def _features() -> None:
    """Precomputed features that the model cannot take."""

    def bad(content: Callable[[random.Random], bytes], *kinds: str) -> Make:
        return lambda rng: BadRow(kinds or ("features",), of_bytes(content(rng)))

    def whole(rng: random.Random) -> np.ndarray:
        return np.random.default_rng(rng.randrange(1 << 30)).normal(size=(16, HIDDEN_SIZE)).astype(np.float32)

    def with_value(value: float) -> Callable[[random.Random], bytes]:
        def make(rng: random.Random) -> bytes:
            array = whole(rng)
            array[rng.randrange(16), rng.randrange(HIDDEN_SIZE)] = value
            return npy(array)

        return make

    case("NaN features", bad(with_value(float("nan"))))
    case("infinite features", bad(with_value(float("-inf"))))
    case("features of another width", bad(lambda rng: npy(whole(rng)[:, :7])))
    case("features of one dimension", bad(lambda rng: npy(whole(rng)[0])))
    case("features of no rows", bad(lambda rng: npy(whole(rng)[:0])))
    case("features of whole numbers", bad(lambda rng: npy(whole(rng).astype(np.int64))))
    case("features of text", bad(lambda rng: npy(np.array([["a", "b"]]))))
    case("features of complex numbers", bad(lambda rng: npy(whole(rng).astype(np.complex64))))
    case("pickled features", bad(lambda rng: npy(np.array([Exception()], dtype=object), pickled=True)))
    case("truncated features", bad(lambda rng: npy(whole(rng))[: rng.randrange(10, 5000)]))
    case("features that promise terabytes", bad(lambda rng: _npy_head((1 << 34, HIDDEN_SIZE)) + bytes(64)))
    case("features of a negative shape", bad(lambda rng: _npy_head((-1, HIDDEN_SIZE)) + bytes(64)))
    case("damaged safetensors", bad(lambda rng: save({"a": torch.zeros(16, HIDDEN_SIZE)})[:-9]))
    case("two tensors", bad(lambda rng: save({"a": torch.zeros(2, 2), "b": torch.zeros(2, 2)})))
    case("safetensors of 8-bit floats", bad(lambda rng: save({"a": torch.zeros(3, 7).to(torch.float8_e5m2)})))
    case("more features than the context holds", bad(lambda rng: npy(np.tile(whole(rng), (40, 1))), "prompt_too_long"))


def _npy_head(shape: tuple[int, ...]) -> bytes:
    head = repr({"descr": "<f4", "fortran_order": False, "shape": shape}).encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\0" + struct.pack("<H", len(head)) + head


_features()
