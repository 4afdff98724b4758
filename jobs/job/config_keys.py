"""What a key of job.toml is declared with: meaning, effect on results, example and default."""

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo


class Effect(StrEnum):
    """What another value of a key does to the results that a job has already."""

    ANOTHER_JOB = "another job"  # they could be different ones: it is another job, with another output folder
    CONTENT = "content"  # what the value leads to decides: the same content elsewhere is the same job
    MAY_GROW = "may grow"  # a larger value leaves them as they are and adds to them; a smaller one is another job
    FREE = "free"  # nothing


def key(meaning: str, effect: Effect, *, example: Any, default: Any = ...) -> Any:
    """Declare one key of a table.

    Args:
        meaning: one line for people.
        effect: what another value does to the results of a job that has begun.
        example: a value that the key takes.
        default: value where job.toml does not name the key; without one the key is required.
    """
    return Field(default, description=meaning, examples=[example], json_schema_extra={"effect": effect.value})


def effect_of(field: FieldInfo) -> Effect:
    """The effect that a key was declared with."""
    declared = field.json_schema_extra
    assert isinstance(declared, dict), "declare the keys of a table with key()"
    return Effect(str(declared["effect"]))


class Table(BaseModel):
    """A table of job.toml: no other keys than those declared, and no value taken for one of another type."""

    # Processes that only import this, or unpickle a job, need not wait until the checks are built.
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", defer_build=True)
