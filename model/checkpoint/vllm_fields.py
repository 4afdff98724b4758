"""The fields of vLLM's EngineArgs and SamplingParams as their declarations have them, for people."""

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

import msgspec
from vllm import SamplingParams
from vllm.engine.arg_utils import EngineArgs

_LONGEST_DEFAULT = 60


def vllm_fields(table: str) -> Iterator[tuple[str, str, str]]:
    """Name, type and default of each field that a job's table, `engine` or `sampling`, may name.

    A default is empty where there is none, or where vLLM makes it of other settings.
    """
    fields: Any = dataclasses.fields(EngineArgs) if table == "engine" else msgspec.structs.fields(SamplingParams)
    for field in fields:
        if not field.name.startswith("_"):
            yield field.name, _type_name(field.type), _shown(field)


def _type_name(declared: Any) -> str:
    """A type as Python writes it, without modules and without None."""
    name = declared.__name__ if isinstance(declared, type) else str(declared)
    name = re.sub(r"\b(?:\w+\.)+(\w)", r"\1", name)
    return " | ".join(part for part in name.split(" | ") if part != "None")


def _shown(field: Any) -> str:
    value = field.default
    if isinstance(value, str | int | float):
        text = repr(value) if not isinstance(value, bool) else str(value).lower()
        return text if len(text) <= _LONGEST_DEFAULT else ""
    return ""
