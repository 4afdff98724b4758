"""The reference of job.toml: every key with its type, default, meaning and example, from the declarations themselves.

`run-batch keys` shows it, `--json-schema` gives it to editors, and docs/job-toml.md is made of it.
"""

import json
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from run_batch.jobs.job.config_keys import Effect, effect_of
from run_batch.jobs.job.config_tables import TABLES, UNDECLARED_TABLES, JobTables
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.slurm.sbatch_options import OWN_KEYS
from run_batch.model.checkpoint.nearest_name import nearest_or_all
from run_batch.model.checkpoint.refused_settings import why_refused

_WIDTH = 100
_VLLM_TYPES = {"engine": "EngineArgs", "sampling": "SamplingParams"}
_EFFECTS = {
    Effect.ANOTHER_JOB: "another value is another job",
    Effect.CONTENT: "another value is the same job where it leads to the same content",
    Effect.MAY_GROW: "may grow later",
    Effect.FREE: "free to change",
}


@dataclass(frozen=True, slots=True)
class Key:
    """One key of job.toml.

    Attributes:
        name: with its table: `input.path`.
        accepts: the type of its value, in words.
        default: as job.toml would have it; `required`, or empty where leaving it out means something of its own.
        meaning: one line.
        example: as job.toml would have it; empty for keys of vLLM's and sbatch's.
        effect: what another value does to the results of a job that has begun, in words.
    """

    name: str
    accepts: str
    default: str
    meaning: str
    example: str = ""
    effect: str = ""


def declared_keys(table: str) -> list[Key]:
    """The keys of a table that run-batch declares itself."""
    schema = json.loads(json_schema())["$defs"][TABLES[table].__name__]
    required = schema.get("required", ())
    return [
        Key(
            f"{table}.{name}",
            _type_words(found),
            "required" if name in required else toml_value(found.get("default")),
            found["description"],
            toml_value(found["examples"][0]),
            _EFFECTS[effect_of(TABLES[table].model_fields[name])],
        )
        for name, found in schema["properties"].items()
    ]


def keys_of(table: str) -> list[Key]:
    """The keys of any table; those of [engine] and [sampling] as the installed vLLM has them.

    Raises:
        JobError: there is no such table.
    """
    if table in TABLES:
        return declared_keys(table)
    if table == "lora":
        return []
    if table == "slurm":
        return [Key(f"slurm.{name}", "", "", meaning) for name, meaning in OWN_KEYS.items()]
    if table in _VLLM_TYPES:
        return list(_vllm_keys(table))
    raise JobError(f"no table [{table}]{nearest_or_all(table, [*TABLES, *UNDECLARED_TABLES])}")


def _vllm_keys(table: str) -> Iterator[Key]:
    """The fields of vLLM's that a job may set."""
    # Imports vLLM, which takes seconds.
    from run_batch.model.checkpoint.vllm_fields import vllm_fields

    for name, accepts, default in vllm_fields(table):
        if why_refused(table, name) is None:
            yield Key(f"{table}.{name}", accepts, "" if name == "max_tokens" else default, "")


def describe(name: str | None = None) -> str:
    """The keys for people: of all declared tables, of one table, or one key.

    Raises:
        JobError: there is no such table or key.
    """
    if name is None:
        text = [_described(table, declared_keys(table)) for table in TABLES]
        return "\n\n".join([*text, *(f"[{table}]  {_of_others(table)}" for table in UNDECLARED_TABLES)])
    table, _, key = name.strip("[]").partition(".")
    keys = keys_of(table)
    if key:
        wanted = [found for found in keys if found.name == f"{table}.{key}"]
        if not wanted:
            raise JobError(f"no key {name}{nearest_or_all(key, [k.name.partition('.')[2] for k in keys], f'{table}.')}")
        return _entry(wanted[0])
    return _described(table, keys)


def _described(table: str, keys: list[Key]) -> str:
    about = TABLES[table].__doc__ if table in TABLES else _of_others(table)
    return "\n".join([f"[{table}]  {about}", *map(_entry, keys)])


def _of_others(table: str) -> str:
    """What a table takes whose keys run-batch does not declare."""
    if table == "slurm":
        return "Long options of sbatch, by their own names, and run-batch's own; see `run-batch keys slurm`."
    if table == "lora":
        return "LoRA adapters that rows may name in input.lora_column: name = folder or Hub id, in safetensors."
    text = f"Fields of vLLM's {_VLLM_TYPES[table]}, by their own names; `run-batch keys {table}` lists them."
    if table == "sampling":
        text += (
            " The checkpoint's generation config comes before vLLM's defaults; max_tokens is what the context leaves."
        )
    return text


def _entry(key: Key) -> str:
    facts = [key.accepts, key.default and f"default {key.default}" if key.default != "required" else "required"]
    head = f"  {key.name}  ({', '.join(filter(None, facts))})" if any(facts) else f"  {key.name}"
    notes = [key.meaning, key.example and f"Example: {key.example}", key.effect and f"({key.effect})"]
    body = textwrap.wrap("  ".join(filter(None, notes)), _WIDTH, initial_indent="      ", subsequent_indent="      ")
    return "\n".join([head, *body])


def markdown() -> str:
    """docs/job-toml.md."""
    parts = [
        "# job.toml: all keys",
        "`run-batch keys` shows this page in a terminal, `run-batch keys TABLE` one table, vLLM's fields included.\n"
        "`run-batch keys --json-schema > job.schema.json` and a first line `#:schema ./job.schema.json` in job.toml\n"
        "let editors complete and check keys. Relative paths are relative to the folder of job.toml.",
        "The last column says what another value means for a job that has begun: *another job* is refused in the same\n"
        "output folder, *content* is the same job where the value leads to the same content, *may grow* adds to what\n"
        "is there, *free* changes nothing of the results.",
    ]
    for table in TABLES:
        rows = [
            f"| `{key.name}` | {key.accepts} | {_cell(key.default)} | {_escaped(key.meaning)} | "
            f"`{key.example}` | {effect_of(TABLES[table].model_fields[key.name.partition('.')[2]])} |".replace("``", "")
            for key in declared_keys(table)
        ]
        header = "| key | type | default | meaning | example | another value |\n|---|---|---|---|---|---|"
        parts += [f"## [{table}]", str(TABLES[table].__doc__), "\n".join([header, *rows])]
    for table in UNDECLARED_TABLES:
        parts += [f"## [{table}]", _of_others(table)]
    own = [f"| `slurm.{name}` | {_escaped(meaning)} |" for name, meaning in OWN_KEYS.items()]
    return "\n\n".join([*parts, "\n".join(["| key | meaning |\n|---|---|", *own])]) + "\n"


def _cell(default: str) -> str:
    return default if default in ("required", "") else f"`{_escaped(default)}`"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


def json_schema() -> str:
    """The JSON Schema of job.toml."""
    schema = JobTables.model_json_schema()
    schema["title"] = "job.toml of run-batch"
    return json.dumps(schema, indent=1)


_WORDS = {
    "string": "text",
    "boolean": "true or false",
    "integer": "whole number",
    "number": "number",
    "object": "table",
}


def _type_words(schema: Mapping[str, Any]) -> str:
    """A JSON Schema type in the words of job.toml."""
    if "anyOf" in schema:
        return " or ".join(_type_words(part) for part in schema["anyOf"] if part.get("type") != "null")
    if "enum" in schema:
        return " or ".join(map(json.dumps, schema["enum"]))
    if schema.get("type") == "array":
        return f"list of {_type_words(schema.get('items', {}))}".replace("text", "texts")
    words = _WORDS.get(schema.get("type", ""), "text or list")
    low, high = schema.get("minimum"), schema.get("maximum")
    bounds = [f" from {low:,.15g}" if low is not None else "", f" to {high:,.15g}" if high is not None else ""]
    return words + "".join(bounds)


def toml_value(value: Any) -> str:
    """A value as job.toml has it; empty for None, which it cannot say."""
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name} = {toml_value(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_value, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
