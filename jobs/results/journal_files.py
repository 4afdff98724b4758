"""The journal files of a job, of all its processes, alive or dead: where they lie and what their names tell.

`FIRST-LAST.LABEL.WRITER-N.journal` holds rows of shards FIRST to LAST. LABEL is that of the share (`all`, `3-of-64`);
WRITER tells its process from all others.
"""

import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from run_batch.io.files import list_names
from run_batch.io.outputs.journal import SUFFIX, read_segment
from run_batch.io.outputs.shards import ShardStore
from run_batch.io.transient import retry
from run_batch.jobs.results.journal_rows import JournalRow, decode_rows

_SEGMENT_NAME = re.compile(rf"(\d+)-(\d+)\.([^.]+)\.(.+)-\d+{re.escape(SUFFIX)}")


@dataclass(frozen=True, slots=True)
class Segment:
    """A journal file, as far as its name tells.

    Attributes:
        shards: the shards that it may have rows of.
        label: the label of its process's share.
        writer: the name of its process, unlike all others.
    """

    path: Path
    shards: range
    label: str
    writer: str


def writer_name() -> str:
    """A name for this process that no other one has, on any machine, at any time."""
    return f"{socket.gethostname()}-{os.getpid()}-{time.time_ns()}"


def segment_name(shards: range, label: str, writer: str) -> str:
    """The beginning of the names of journal files with rows of these shards; see Segment."""
    return f"{shards.start}-{shards.stop - 1}.{label}.{writer}"


def segments(store: ShardStore) -> list[Segment]:
    """All journal files, of running and of dead processes.

    Raises:
        OSError: the folder cannot be read.
    """
    folder = store.journal_folder
    names = sorted(list_names(folder)) if retry(folder.is_dir) else []
    return [
        Segment(folder / match[0], range(int(match[1]), int(match[2]) + 1), match[3], match[4])
        for match in map(_SEGMENT_NAME.fullmatch, names)
        if match
    ]


def read_rows(segment: Segment, job_hash: str) -> Iterator[JournalRow]:
    """The rows of a journal file, up to the first damage.

    Raises:
        OSError: the file cannot be read.
    """
    for payload in read_segment(segment.path, job_hash):
        yield from decode_rows(payload)


def remove_settled(
    store: ShardStore, job_hash: str, is_running: Callable[[str], bool], is_left: Callable[[JournalRow], bool]
) -> None:
    """Remove the journal files of dead processes that hold nothing that is still to be committed.

    Args:
        is_running: whether a process works on the share with this label; its files are left alone.
        is_left: whether a row is still to be committed.

    Raises:
        OSError: a file cannot be read or removed.
    """
    # Listed before anybody is asked for: a file of this list whose share has no process is a dead one's.
    found = segments(store)
    running = {label: is_running(label) for label in {segment.label for segment in found}}
    for segment in found:
        if not running[segment.label] and not any(map(is_left, read_rows(segment, job_hash))):
            segment.path.unlink(missing_ok=True)
