"""Shares: the parts of a job that separate processes work on, which have only the output folder in common.

A share is a range of consecutive shards, so its process reads its part of the input once, from front to back. It begins
where a row group does, if one is near: inside of a row group, all rows before its first one would be read in vain. The
ranges depend only on the plan and the number of shares: every process computes the same ones by itself.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from run_batch.io.coordination.lease import is_held
from run_batch.io.files import list_names
from run_batch.io.transient import retry
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.plan import Plan

SHARES_FOLDER = "shares"
_ENGINES = "engines"
# Pause between two looks at the files of processes that run at the same time.
LOOK_SECONDS = 1.0
# By this part of its size, a share may begin earlier or later than if all were of one size.
_DISTANCE = 16


@dataclass(frozen=True, slots=True)
class Share:
    """Share `index` of `count`, counted from 0. Share 0 of 1 is the whole job.

    Raises:
        JobError: there is no such share.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise JobError(f"a job cannot be cut into {self.count} shares")
        if not 0 <= self.index < self.count:
            raise JobError(f"no share {self.index} of {self.count}: shares are counted from 0 to {self.count - 1}")

    @property
    def label(self) -> str:
        """Its name in file names. A lease is per label: shares with different labels run at the same time."""
        return "all" if self.count == 1 else f"{self.index}-of-{self.count}"

    @property
    def folder(self) -> str:
        """The folder of its files, relative to the job's `.run_batch` folder."""
        return "" if self.count == 1 else f"{SHARES_FOLDER}/{self.label}"

    def shards(self, plan: Plan) -> range:
        """Its shards. Every shard is in exactly one share, whose size is even but for an eighth, or for one shard."""
        return range(_cut(plan, self.index, self.count), _cut(plan, self.index + 1, self.count))


WHOLE_JOB = Share(0, 1)


def _cut(plan: Plan, index: int, count: int) -> int:
    """The shard at which share `index` of `count` begins."""
    even = plan.num_shards * index // count
    # A process that has more to do than others is helped at the end; what is read in vain is lost.
    return plan.nearest_begin(even, plan.num_shards // count // _DISTANCE) if 0 < index < count else even


def rows_in_vain(plan: Plan, count: int) -> int:
    """About how many rows the processes of all `count` shares together read in vain."""
    return sum(plan.rows_before(_cut(plan, index, count)) for index in range(1, count) if index < plan.num_shards)


def share_of(label: str) -> Share | None:
    """The share with a label; None if it is not the label of a share."""
    if label == WHOLE_JOB.label:
        return WHOLE_JOB
    match = re.fullmatch(r"(\d+)-of-(\d+)", label)
    return Share(int(match[1]), int(match[2])) if match and int(match[1]) < int(match[2]) else None


def begun_shares(run_folder: Path) -> list[Share]:
    """All shares that have ever been begun, and the whole job.

    Args:
        run_folder: the job's `.run_batch` folder.

    Raises:
        OSError: the folder cannot be read.
    """
    folder = run_folder / SHARES_FOLDER
    labels = list_names(folder) if retry(folder.is_dir) else []
    return [WHOLE_JOB, *filter(None, map(share_of, labels))]


def is_running(run_folder: Path, share: Share) -> bool:
    """Whether a process works on a share, as far as can be told.

    Args:
        run_folder: the job's `.run_batch` folder.

    Raises:
        OSError: the folder cannot be read.
    """
    folder = run_folder / share.folder
    return retry(folder.is_dir) and is_held(folder, share.label)


def engines_lease_name(share: Share) -> str:
    """The name of the lease of the process that starts several engines for a share.

    It is no share's: to other processes, who holds it works on no shard.
    """
    return _ENGINES if share.count == 1 else f"{_ENGINES}-{share.label}"


def has_engines(run_folder: Path) -> bool:
    """Whether a process runs that has started engines, or is about to.

    Args:
        run_folder: the job's `.run_batch` folder.

    Raises:
        OSError: the folder cannot be read.
    """
    return any(is_held(run_folder, name) for name in engines_leases(run_folder))


def engines_leases(run_folder: Path) -> set[str]:
    """The names of the leases of processes that run several engines, whether they are held or stale.

    Args:
        run_folder: the job's `.run_batch` folder.
    """
    leases = (path.name for path in run_folder.glob(f"lease-{_ENGINES}*.*"))
    return {name.removeprefix("lease-").rpartition(".")[0] for name in leases}


def files_of_shares(run_folder: Path, name: str) -> Iterator[Path]:
    """The files of this name, which may be a glob, in the folders of all shares; not those of the whole job.

    Args:
        run_folder: the job's `.run_batch` folder.
    """
    return run_folder.glob(f"{SHARES_FOLDER}/*/{name}")
