"""Finds mistyped names in the tables `engine` and `sampling` without importing vLLM."""

from collections.abc import Collection, Mapping
from typing import Any

from run_batch.model.checkpoint import vllm_field_names
from run_batch.model.checkpoint.nearest_name import did_you_mean

_NAMES: Mapping[str, Collection[str]] = {
    "engine": frozenset(vllm_field_names.ENGINE.split()),
    "sampling": frozenset(vllm_field_names.SAMPLING.split()),
}


def find_unknown(version: str, engine: Mapping[str, Any], sampling: Mapping[str, Any]) -> str | None:
    """What is wrong with a name that vLLM has not; None for nothing.

    Args:
        version: of the installed vLLM. The names of another one than that of the list are found out when it is
            imported.
        engine, sampling: the job's tables.
    """
    if version != vllm_field_names.VERSION:
        return None
    for table, values in (("engine", engine), ("sampling", sampling)):
        for key in values:
            if key not in _NAMES[table]:
                return f"unknown key {table}.{key}{did_you_mean(key, _NAMES[table])}"
    return None
