"""Finds mistyped names and values in the tables `engine` and `sampling` without importing vLLM."""

from collections.abc import Collection, Mapping
from typing import Any

from run_batch.model.checkpoint import vllm_field_names
from run_batch.model.checkpoint.nearest_name import did_you_mean, nearest_or_all

_NAMES: Mapping[str, Collection[str]] = {
    "engine": frozenset(vllm_field_names.ENGINE.split()),
    "sampling": frozenset(vllm_field_names.SAMPLING.split()),
}

_KINDS = {"int": "a whole number", "float": "a number", "bool": "true or false"}
_KIND_OF = {name: kind for kind, names in vllm_field_names.NUMBERS.items() for name in names.split()}
_CHOICES = {name: values.split() for name, values in vllm_field_names.CHOICES.items()}
_FIELDS = {name: fields.split() for name, fields in vllm_field_names.TABLES.items()}


def find_unknown(version: str, engine: Mapping[str, Any], sampling: Mapping[str, Any]) -> str | None:
    """What is wrong with a name that vLLM has not, or with a value of another type; None for nothing, as far as the
    list tells: vLLM checks the rest.

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
            if wrong := _find_wrong(f"{table}.{key}", values[key]):
                return wrong
    return None


def _find_wrong(name: str, value: Any) -> str | None:
    if value is None:  # as if it were left out
        return None
    kind, choices = _KIND_OF.get(name), _CHOICES.get(name)
    if kind is not None and not _is_of(kind, value):
        return f"{name} = {value!r}: expected {_KINDS[kind]}"
    if choices is not None and value not in choices:
        return f"{name} = {value!r}: expected {', '.join(choices)}{did_you_mean(str(value), choices)}"
    if name in _FIELDS and isinstance(value, Mapping):
        for key in value:
            if key not in _FIELDS[name]:
                return f"unknown key {name}.{key}{nearest_or_all(key, _FIELDS[name])}"
    return None


def _is_of(kind: str, value: Any) -> bool:
    if isinstance(value, bool) or kind == "bool":
        return isinstance(value, bool) and kind == "bool"
    return isinstance(value, int) or (isinstance(value, float) and (kind == "float" or value.is_integer()))
