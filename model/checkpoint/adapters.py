"""LoRA adapters on disk: where they lie, what they hold, and the engine settings that they need.

Only safetensors are read: other files of weights are pickles, which can run code. Whether an adapter fits the model is
known once that is loaded: see adapter_fit.py.
"""

import json
import struct
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from run_batch.model.checkpoint.hub import is_hub_id, snapshot_folder

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PICKLES = ("adapter_model.bin", "adapter_model.pt")
# Adapters that one step of the engine computes with, where a job has many: each takes memory beside the weights.
_MOST_AT_ONCE = 8
# Of a safetensors header, whose length is the file's first eight bytes.
_MOST_HEADER_BYTES = 100 << 20


class AdapterError(Exception):
    """An adapter cannot be used; the message names it, and says why."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter.

    Attributes:
        key: the key of job.toml that names it: `model.lora`, `lora.NAME`.
        folder: where it lies on this machine.
        rank: the largest of its layers.
    """

    key: str
    folder: Path
    rank: int


def adapter_folder(key: str, path: str) -> Path:
    """The folder of an adapter; one on the Hub is downloaded to the Hub's cache on this machine.

    Args:
        path: absolute, or an id on the Hub.

    Raises:
        AdapterError: it is not there.
    """
    folder = snapshot_folder(path, None, (CONFIG, WEIGHTS))
    if folder is None:
        where = "not found on the Hub, or that is not reached" if is_hub_id(path) else "no such folder"
        raise AdapterError(f"{key} {path}: {where}")
    return folder


def read_adapter(key: str, path: str) -> Adapter:
    """Look at an adapter's files, without its weights.

    Raises:
        AdapterError: a file is missing, cannot be read, or is none of a LoRA adapter.
    """
    folder = adapter_folder(key, path)
    config = _read_config(key, folder)
    if not (folder / WEIGHTS).is_file():
        pickle = next((name for name in _PICKLES if (folder / name).is_file()), None)
        why = f"no {WEIGHTS}"
        if pickle is not None:
            why += f"; {pickle} is a pickle, which can run code when it is loaded: save the adapter as safetensors"
        raise AdapterError(f"{key} {folder}: {why}")
    if not any(".lora_" in name for name in _tensor_names(key, folder / WEIGHTS)):
        raise AdapterError(f"{key} {folder}: {WEIGHTS} holds no weights of a LoRA adapter")
    return Adapter(key, folder, _rank(key, folder, config))


def adapter_settings(adapters: Sequence[Adapter], ranks: Iterable[int], is_cpu: bool) -> dict[str, Any]:
    """The fields of vLLM's EngineArgs that adapters need; none without adapters.

    Args:
        ranks: values of `max_lora_rank` that vLLM takes.
        is_cpu: the engine runs on a CPU.

    Raises:
        AdapterError: the rank of one is larger than vLLM takes.
    """
    if not adapters:
        return {}
    largest = max(adapters, key=lambda adapter: adapter.rank)
    fitting = [rank for rank in ranks if rank >= largest.rank]
    if not fitting:
        raise AdapterError(f"{largest.key} {largest.folder}: rank {largest.rank} is larger than vLLM takes")
    at_once = len(adapters) + 1 if is_cpu else min(len(adapters), _MOST_AT_ONCE)
    return {"enable_lora": True, "max_lora_rank": min(fitting), "max_loras": at_once}


def check_slots(adapters: Collection[str], engine: Mapping[str, Any], is_cpu: bool) -> None:
    """Check `engine.max_loras`, where the job sets it.

    On a CPU, vLLM 0.32 gives rows without an adapter that of the last slot, when they run beside rows with one: a slot
    has to stay empty.

    Raises:
        AdapterError: rows would get adapters of others.
    """
    most = engine.get("max_loras")
    if is_cpu and adapters and isinstance(most, int) and most <= len(adapters):
        raise AdapterError(
            f"engine.max_loras = {most}: on a CPU, vLLM needs one more than the job has adapters ({len(adapters)}), or "
            "rows without one get that of another row; remove the key"
        )


def _read_config(key: str, folder: Path) -> Mapping[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_bytes())
    except FileNotFoundError:
        raise AdapterError(f"{key} {folder}: no {CONFIG}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise AdapterError(f"{key} {folder}: {CONFIG} cannot be read: {error}") from error
    kind = config.get("peft_type", "LORA") if isinstance(config, dict) else None
    if kind != "LORA":
        raise AdapterError(f"{key} {folder}: {CONFIG} is not that of a LoRA adapter (peft_type {kind!r})")
    return dict(config)


def _rank(key: str, folder: Path, config: Mapping[str, Any]) -> int:
    patterns = config.get("rank_pattern") or {}
    ranks = [config.get("r"), *(patterns.values() if isinstance(patterns, dict) else [None])]
    whole = [rank for rank in ranks if type(rank) is int and rank > 0]
    if len(whole) < len(ranks):
        raise AdapterError(f"{key} {folder}: {CONFIG} has r = {config.get('r')!r}, rank_pattern = {patterns!r}")
    return max(whole)


def _tensor_names(key: str, file: Path) -> list[str]:
    """The names in a safetensors file, from its header alone."""
    try:
        with open(file, "rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            if length > _MOST_HEADER_BYTES:
                raise ValueError(f"a header of {length:,} bytes")
            return list(json.loads(opened.read(length)))
    except (OSError, ValueError, TypeError, struct.error, RecursionError) as error:
        raise AdapterError(f"{key} {file.parent}: {file.name} cannot be read as safetensors: {error}") from error
