"""What became of a row that the engine took. Imports neither torch nor vLLM."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One candidate of one generated position."""

    token_id: int
    token: str
    logprob: float
    rank: int


@dataclass(frozen=True, slots=True)
class Generation:
    """What became of one row.

    Attributes:
        row: index in the input.
        texts: one per requested sequence (`sampling.n`).
        finish_reason: `stop` or `length`.
        prompt_tokens: with image tokens.
        generated_tokens: of all sequences.
        logprobs: per generated token of the first sequence, its candidates by rank; None unless asked for.
    """

    row: int
    texts: tuple[str, ...]
    finish_reason: str
    prompt_tokens: int
    generated_tokens: int
    logprobs: tuple[tuple[TokenLogprob, ...], ...] | None = None
