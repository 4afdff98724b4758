"""Writes model/checkpoint/vllm_field_names.py: names and plain types of the fields of the installed vLLM's settings."""

import dataclasses
import inspect
import textwrap
import types
import typing
from pathlib import Path
from typing import Any

import msgspec
import vllm
from vllm import SamplingParams
from vllm.engine.arg_utils import EngineArgs

from run_batch.model.checkpoint.vllm_fields import vllm_fields

FILE = Path(__file__).resolve().parents[1] / "model" / "checkpoint" / "vllm_field_names.py"
HEAD = '''"""The fields of EngineArgs (ENGINE) and SamplingParams (SAMPLING) of one version of vLLM.

Their names, and which have a plain type (NUMBERS), a few values (CHOICES), or are tables with own fields (TABLES).
Written by scripts/write_field_names.py. Importing vLLM to find a mistake takes seconds.
"""
'''


def single_type(declared: Any) -> Any:
    """A type without None and annotations; None for one of several."""
    if typing.get_origin(declared) is typing.Annotated:
        return single_type(typing.get_args(declared)[0])
    if typing.get_origin(declared) in (typing.Union, types.UnionType):
        left = [kind for kind in typing.get_args(declared) if kind is not type(None)]
        return single_type(left[0]) if len(left) == 1 else None
    return declared


def declared_types() -> dict[str, Any]:
    """The type of each field, where it is one."""
    engine: Any = dataclasses.fields(EngineArgs)
    fields = [("engine", field) for field in engine]
    fields += [("sampling", field) for field in msgspec.structs.fields(SamplingParams)]
    return {f"{table}.{field.name}": single_type(field.type) for table, field in fields if field.name[0] != "_"}


def nested_fields(kind: Any) -> list[str]:
    """The fields that a table of a type may have; none for a type that is no table."""
    if dataclasses.is_dataclass(kind) or (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return [name for name in inspect.signature(kind).parameters if not name.startswith("_")]
    return []


def choices(kind: Any) -> list[str]:
    """The texts that a type consists of; none for another one."""
    found = typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else ()
    return list(found) if all(isinstance(value, str) for value in found) else []


def as_dict(name: str, values: dict[str, list[str]]) -> list[str]:
    """A dictionary of texts, as source."""
    lines = [f"{name} = {{"]
    for key, words in values.items():
        if len(short := f'    "{key}": "{" ".join(words)}",') < 120:
            lines.append(short)
            continue
        lines += [f'    "{key}": """', *textwrap.wrap(" ".join(words), 119, break_on_hyphens=False), '""",']
    return [*lines, "}"]


def source() -> str:
    """The text of the file."""
    lines = [HEAD, f'VERSION = "{vllm.__version__}"']
    for table in ("engine", "sampling"):
        names = " ".join(name for name, _, _ in vllm_fields(table))
        lines += [f'{table.upper()} = """', textwrap.fill(names, 119), '"""']
    declared = declared_types()
    numbers = {kind.__name__: [key for key, of in declared.items() if of is kind] for kind in (int, float, bool)}
    lines += as_dict("NUMBERS", numbers)
    for name, find in (("CHOICES", choices), ("TABLES", nested_fields)):
        lines += as_dict(name, {key: words for key, kind in declared.items() if (words := find(kind))})
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    FILE.write_text(source())
