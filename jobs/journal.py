"""What a crash must not lose: finished rows as journal records, and back from the journals of earlier runs.

Rows are JSON, compact, one list for each row: no code comes out of a file. A row of a shard that is written again
(`--retry-failed`) says for which attempt it is, so that a row left from an earlier attempt is never taken for its
successor.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from run_batch.io.journal import SUFFIX, read_segment
from run_batch.io.shards import ShardStore
from run_batch.jobs.generation import Generation, TokenLogprob
from run_batch.jobs.mapped import RowFailure
from run_batch.jobs.plan import Plan

Finished = Generation | RowFailure


@dataclass(frozen=True, slots=True)
class JournalRow:
    """A finished row.

    Attributes:
        attempt: how often the row's shard had been committed before.
    """

    attempt: int
    result: Finished


@dataclass(slots=True)
class Recovered:
    """What earlier runs left.

    Attributes:
        results: finished rows of shards that are still to be committed, by row: a row in two journals counts once.
        segments: journal files that hold rows of our shards alone: they go when those are committed.
    """

    results: dict[int, Finished] = field(default_factory=dict)
    segments: list[tuple[Path, set[int]]] = field(default_factory=list)


def encode_rows(rows: Iterable[JournalRow]) -> bytes:
    return json.dumps([_to_json(row) for row in rows], separators=(",", ":")).encode()


def _to_json(row: JournalRow) -> list[Any]:
    result = row.result
    if isinstance(result, RowFailure):
        return [row.attempt, result.row, result.error]
    logprobs = result.logprobs
    return [
        *(row.attempt, result.row, result.texts, result.finish_reason, result.prompt_tokens, result.generated_tokens),
        logprobs and [[(c.token_id, c.token, c.logprob, c.rank) for c in position] for position in logprobs],
    ]


def decode_rows(payload: bytes) -> list[JournalRow]:
    return [_from_json(row) for row in json.loads(payload)]


def _from_json(row: list[Any]) -> JournalRow:
    if len(row) == 3:
        return JournalRow(row[0], RowFailure(row[1], row[2]))
    attempt, index, texts, finish_reason, prompt_tokens, generated_tokens, found = row
    logprobs = None
    if found is not None:
        logprobs = tuple(tuple(TokenLogprob(*candidate) for candidate in position) for position in found)
    return JournalRow(
        attempt, Generation(index, tuple(texts), finish_reason, prompt_tokens, generated_tokens, logprobs)
    )


def journal_folder(store: ShardStore) -> Path:
    return store.run_folder / "journal"


def recover(
    store: ShardStore, job_hash: str, plan: Plan, attempts: Callable[[int], int | None], owned: Callable[[int], bool]
) -> Recovered:
    """Read the journals of earlier runs.

    Args:
        attempts: for a shard that is to be committed, how often it has been so before; None for all others.
        owned: whether this run is the one that works on a shard: journals with rows of others are left to those.

    Raises:
        OSError: the folder cannot be read.
    """
    found = Recovered()
    folder = journal_folder(store)
    for path in sorted(folder.glob(f"*{SUFFIX}")) if folder.is_dir() else []:
        shards: set[int] = set()
        for payload in read_segment(path, job_hash):
            for row in decode_rows(payload):
                shard = row.result.row // plan.rows_per_shard
                shards.add(shard)
                if attempts(shard) == row.attempt:
                    found.results.setdefault(row.result.row, row.result)
        # One without a row may be another process's that has just begun it.
        if shards and all(map(owned, shards)):
            found.segments.append((path, {shard for shard in shards if attempts(shard) is not None}))
    return found


def remove_journals(store: ShardStore) -> None:
    """Remove all journals: every shard is committed."""
    folder = journal_folder(store)
    if folder.is_dir():
        for path in folder.glob(f"*{SUFFIX}"):
            path.unlink(missing_ok=True)
