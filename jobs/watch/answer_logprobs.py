"""The log probability of an answer, from the result columns of its row.

Results hold the candidates of each token by rank, not which of them was generated. That is known of a token with one
candidate, where `output.extra` keeps `token_ids`, and where the candidates can be put together to the text in one way;
else the log probability is not told.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

LOGPROBS = "logprobs"
LOGPROB_COLUMNS = (LOGPROBS, "text", "token_ids")


@dataclass(frozen=True, slots=True)
class AnswerLogprob:
    """Log probabilities of the tokens that a text was made of, without one that ended it and left no text.

    Attributes:
        tokens: how many.
        total: their sum.
    """

    tokens: int
    total: float

    @property
    def mean(self) -> float:
        """Of a token."""
        return self.total / self.tokens


@dataclass(frozen=True, slots=True)
class _Candidate:
    token_id: int
    token: str
    logprob: float


def answer_logprob(batch: pa.RecordBatch, place: int) -> AnswerLogprob | None:
    """That of a row's first sequence; None where it has none, or where it cannot be told which tokens were generated.

    Args:
        batch: of `LOGPROB_COLUMNS`.
        place: of the row in it.
    """
    text, cell = batch.column("text")[place].as_py(), batch.column(LOGPROBS)[place]
    if text is None or not cell.is_valid:
        return None
    positions = _first_sequence(cell, depth=2)
    if positions is None or not len(positions):
        return None
    candidates = _candidates(positions)
    if "token_ids" in batch.schema.names and batch.column("token_ids")[place].is_valid:
        ids = _first_sequence(batch.column("token_ids")[place], depth=1)
        chosen = zip(candidates, ids.to_pylist() if ids is not None else (), strict=False)
        candidates = [[found for found in of_token if found.token_id == token_id] for of_token, token_id in chosen]
    found = _of_text(candidates, _bare(text))
    if found is None and all(len(of_token) == 1 for of_token in candidates):
        # What a token alone stands for is no text where a character is made of several.
        return AnswerLogprob(len(candidates), sum(of_token[0].logprob for of_token in candidates))
    return found if found is not None and found.tokens else None


def _first_sequence(cell: pa.Scalar, depth: int) -> pa.Array | None:
    """The list of one sequence: the cell itself, or its first item where it is a list of sequences."""
    kind, levels = cell.type, 0
    while pa.types.is_list(kind):
        kind, levels = kind.value_type, levels + 1
    if levels == depth:
        return cell.values
    return cell.values[0].values if len(cell.values) else None


def _candidates(positions: pa.Array) -> list[list[_Candidate]]:
    """The candidates of each token, by rank."""
    lengths = positions.value_lengths().to_pylist()
    fields = positions.flatten()
    values = (fields.field(name).to_pylist() for name in ("token_id", "token", "logprob"))
    every = iter([_Candidate(*found) for found in zip(*values, strict=True)])
    return [[next(every) for _ in range(length or 0)] for length in lengths]


def _of_text(candidates: Sequence[Sequence[_Candidate]], text: str) -> AnswerLogprob | None:
    """What the tokens that make a text have; None where there is not one way alone to make it.

    Args:
        text: without white space, which single tokens are shown without.
    """
    # By how much of the text there is: what its tokens have; None where several ways lead there.
    ways: dict[int, AnswerLogprob | None] = {0: AnswerLogprob(0, 0.0)}
    whole: list[AnswerLogprob | None] = []
    for of_token in candidates:
        following: dict[int, AnswerLogprob | None] = {}
        for length, so_far in ways.items():
            for candidate in of_token:
                token = _bare(candidate.token)
                if text.startswith(token, length):
                    reached = length + len(token)
                    more = AnswerLogprob(so_far.tokens + 1, so_far.total + candidate.logprob) if so_far else None
                    following[reached] = more if reached not in following else None
        if len(text) in following:
            whole.append(following.pop(len(text)))
        ways = following
    return whole[0] if len(whole) == 1 else None


def _bare(text: str) -> str:
    return "".join(text.split())
