"""What earlier runs, and processes that died, left in journals: finished rows of shards that are not committed yet."""

import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from run_batch.io.outputs.journal import SUFFIX, read_segment
from run_batch.io.outputs.shards import ShardStore
from run_batch.jobs.job.rows import RowResult
from run_batch.jobs.results.journal_rows import JournalRow, decode_rows
from run_batch.jobs.job.plan import Plan

_SEGMENT_NAME = re.compile(rf"(\d+)-(\d+)\.([^.]+)\.(.+)-\d+{re.escape(SUFFIX)}")


@dataclass(slots=True)
class Recovered:
    """What earlier runs left.

    Attributes:
        results: finished rows of shards that are still to be committed, by row: a row in two journals counts once.
        adopted: journal files of earlier processes of our name, each with those of its shards that are still to be
            committed: it goes when they are.
    """

    results: dict[int, RowResult] = field(default_factory=dict)
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
    store: ShardStore, job_hash: str, plan: Plan, shards: range, attempt_of: Callable[[int], int | None], label: str
) -> Recovered:
    """Read what the journals of earlier runs have of a stretch of shards.

    Args:
        attempt_of: for a shard that is to be committed, how often it has been so before; None for all others.
        label: of this process; no other live one has it.

    Raises:
        OSError: the folder cannot be read.
    """
    found = Recovered()
    for segment in segments(store):
        if segment.shards.start >= shards.stop or segment.shards.stop <= shards.start:
            continue
        seen: set[int] = set()
        for attempt, result in read_rows(segment, job_hash):
            shard = result.row // plan.rows_per_shard
            seen.add(shard)
            if shard in shards and attempt_of(shard) == attempt:
                found.results.setdefault(result.row, result)
        if seen and segment.label == label:
            found.adopted.append((segment.path, {shard for shard in seen if attempt_of(shard) is not None}))
    return found


def remove_journals(store: ShardStore) -> None:
    """Remove all journals: every shard is committed."""
    folder = journal_folder(store)
    if folder.is_dir():
        for path in folder.glob(f"*{SUFFIX}"):
            path.unlink(missing_ok=True)
