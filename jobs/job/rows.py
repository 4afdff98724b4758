"""The forms of a row that cross from one room of jobs/ to another, each said once.

    RowBatch (io/inputs) -> worker process -> MappedRow -> engine -> Generation or RowFailure -> journal, shard

Imports neither torch nor vLLM: the worker processes are started before the engine's process spends seconds on those.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import msgspec

# A row's error says what is wrong; it does not carry the row's content into the results.
_MESSAGE_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class MappedRow:
    """A row that the engine can take.

    Attributes:
        row: index in the input.
        engine_input: what `LLMEngine.add_request` takes.
        sampling: this row's own sampling settings, which win over the job's; empty for most jobs.
        nbytes: of its tensors, which other rows of the same images may have in common with it.
        memory: kept as long as the row is, so that its memory counts.
        adapter: the key of job.toml that names its LoRA adapter, as ModelSettings has it; None for none.
        priority: of those in the engine, rows with lower numbers run first.
    """

    row: int
    engine_input: Any
    sampling: Mapping[str, Any]
    nbytes: int = 0
    memory: Any = field(default=None, compare=False, repr=False)
    adapter: str | None = None
    priority: int = 0


class TokenLogprob(msgspec.Struct, frozen=True, array_like=True):
    """One candidate token at one generated position.

    Attributes:
        rank: 1 for the most likely token of the position.
    """

    token_id: int
    token: str
    logprob: float
    rank: int


# The candidates of one position.
Candidates: TypeAlias = tuple[TokenLogprob, ...]


class Timing(msgspec.Struct, frozen=True, array_like=True):
    """What a row spent in the engine, in seconds; of several sequences, the one that ended last.

    Attributes:
        queue: until it was scheduled first.
        prefill: from there to the first token.
        decode: from there to the last token.
    """

    queue: float
    prefill: float
    decode: float


class Generation(msgspec.Struct, frozen=True, array_like=True, tag="generation"):
    """The result of a row for which text was generated.

    Attributes:
        row: index in the input.
        texts: one per requested sequence (`sampling.n`).
        finish_reason: of the first sequence: `stop`, `length` or `repetition`.
        prompt_tokens: tokens of the prompt, image tokens included.
        generated_tokens: of all sequences.
        logprobs: per sequence and generated token, its candidates by rank; None unless asked for.
        other_finish_reasons: of the sequences after the first.
        token_ids: of each sequence, with the token that ended it; None unless asked for.
        stop_reasons: of each sequence, the stop string or the number of the token that ended it; None where neither
            did. None unless asked for.
        prompt_logprobs: per token of the prompt, the token itself and then its candidates by rank; None for the first
            token, and unless asked for.
        timing: None unless asked for.
    """

    row: int
    texts: tuple[str, ...]
    finish_reason: str
    prompt_tokens: int
    generated_tokens: int
    logprobs: tuple[tuple[Candidates, ...], ...] | None = None
    other_finish_reasons: tuple[str, ...] = ()
    token_ids: tuple[tuple[int, ...], ...] | None = None
    stop_reasons: tuple[str | None, ...] | None = None
    prompt_logprobs: tuple[Candidates | None, ...] | None = None
    timing: Timing | None = None

    @property
    def finish_reasons(self) -> tuple[str, ...]:
        """How each sequence ended."""
        return (self.finish_reason, *self.other_finish_reasons)


class Pooled(msgspec.Struct, frozen=True, array_like=True, tag="pooled"):
    """The result of a row for which a pooling model gave numbers.

    Attributes:
        row: index in the input.
        values: float32, as they are in memory.
        prompt_tokens: tokens of the prompt, image tokens included.
    """

    row: int
    values: bytes
    prompt_tokens: int

    @property
    def generated_tokens(self) -> int:
        """None are."""
        return 0


class PooledForm(NamedTuple):
    """What a pooling model gives of each row.

    Attributes:
        column: of the results: `embedding`, `score`, or `probs` of several classes.
        width: numbers of a row.
    """

    column: str
    width: int


class RowFailure(msgspec.Struct, frozen=True, array_like=True, tag="failure"):
    """The result of a row that failed.

    Attributes:
        row: index in the input.
        kind: stable name that users filter on, one of docs/errors.md.
        message: what is wrong with this row, on one line.
    """

    row: int
    kind: str
    message: str

    @property
    def error(self) -> str:
        """The row's cell in the result column `error`."""
        return f"{self.kind}: {self.message}"

    @classmethod
    def of(cls, row: int, kind: str, message: str) -> "RowFailure":
        """A failure from a message that may quote the row: it is cut, and made one line of printable text."""
        text = " ".join(message.encode("utf-8", "backslashreplace").decode().split())
        text = "".join(c if c.isprintable() else "\ufffd" for c in text[: _MESSAGE_CHARACTERS + 1])
        return cls(row, kind, text if len(text) <= _MESSAGE_CHARACTERS else text[:_MESSAGE_CHARACTERS] + " …")


# What a worker process gives back of a batch.
MappedRows: TypeAlias = list[MappedRow | RowFailure]
RowResult: TypeAlias = Generation | Pooled | RowFailure


def is_truncated(result: RowResult) -> bool:
    """Whether the text of a row was cut off, by `max_tokens` or by the end of the context."""
    return isinstance(result, Generation) and result.finish_reason == "length"
