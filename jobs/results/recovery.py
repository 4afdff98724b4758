"""What a crash must not lose: finished rows as journal records, and back from the journals of earlier runs.

Rows are JSON, compact, one list for each row: no code comes out of a file. A row of a shard that is written again
(`--retry-failed`) says for which attempt it is, so that a row left from an earlier attempt is never taken for its
successor.
"""

import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from run_batch.io.outputs.journal import SUFFIX, read_segment
from run_batch.io.outputs.shards import ShardStore
from run_batch.jobs.job.rows import Generation, TokenLogprob
from run_batch.jobs.job.mapped import RowFailure
from run_batch.jobs.job.plan import Plan

Finished = Generation | RowFailure

_SEGMENT_NAME = re.compile(rf"(\d+)-(\d+)\.([^.]+)\.(.+)-\d+{re.escape(SUFFIX)}")


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
        adopted: journal files of earlier processes of our name, each with those of its shards that are still to be
            committed: it goes when they are.
    """

    results: dict[int, Finished] = field(default_factory=dict)
    adopted: list[tuple[Path, set[int]]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Segment:
    """A journal file, as far as its name tells.

    Attributes:
        shards: the shards that it may have rows of.
        label: the name that its process went by.
        writer: its process, told from all others.
    """

    path: Path
    shards: range
    label: str
    writer: str


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


def writer_name() -> str:
    """This process, told from all others on all machines, of all times."""
    return f"{socket.gethostname()}-{os.getpid()}-{time.time_ns()}"


def segment_name(shards: range, label: str, writer: str) -> str:
    """What the names of journal files with rows of these shards begin with; see Segment."""
    return f"{shards.start}-{shards.stop - 1}.{label}.{writer}"


def segments(store: ShardStore) -> list[Segment]:
    """All journal files, of the living and the dead.

    Raises:
        OSError: the folder cannot be read.
    """
    folder = journal_folder(store)
    paths = sorted(folder.glob(f"*{SUFFIX}")) if folder.is_dir() else []
    matches = [(path, _SEGMENT_NAME.fullmatch(path.name)) for path in paths]
    return [
        Segment(path, range(int(match[1]), int(match[2]) + 1), match[3], match[4]) for path, match in matches if match
    ]


def read_rows(segment: Segment, job_hash: str) -> Iterator[JournalRow]:
    """The rows of a journal file, up to the first damage.

    Raises:
        OSError: the file cannot be read.
    """
    for payload in read_segment(segment.path, job_hash):
        yield from decode_rows(payload)


def recover(
    store: ShardStore, job_hash: str, plan: Plan, shards: range, attempt: Callable[[int], int | None], label: str
) -> Recovered:
    """Read what the journals of earlier runs have of a stretch of shards.

    Args:
        attempt: for a shard that is to be committed, how often it has been so before; None for all others.
        label: of this process; no other live one has it.

    Raises:
        OSError: the folder cannot be read.
    """
    found = Recovered()
    for segment in segments(store):
        if segment.shards.start >= shards.stop or segment.shards.stop <= shards.start:
            continue
        seen: set[int] = set()
        for row in read_rows(segment, job_hash):
            shard = row.result.row // plan.rows_per_shard
            seen.add(shard)
            if shard in shards and attempt(shard) == row.attempt:
                found.results.setdefault(row.result.row, row.result)
        if seen and segment.label == label:
            found.adopted.append((segment.path, {shard for shard in seen if attempt(shard) is not None}))
    return found


def remove_journals(store: ShardStore) -> None:
    """Remove all journals: every shard is committed."""
    folder = journal_folder(store)
    if folder.is_dir():
        for path in folder.glob(f"*{SUFFIX}"):
            path.unlink(missing_ok=True)
