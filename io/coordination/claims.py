"""Which shard is in whose hands, where several processes work on one folder.

A claim on shard K is a file `K.N` made by exclusive create; it names the lease of its process (see lease.py), and
counts as long as that lease does. A process makes the file with the lowest N that is not there, past those of dead
processes. Only processes that want the same shard ever look at the same file, and each costs one create and one unlink.
"""

import contextlib
import json
import os
import time
from dataclasses import asdict
from pathlib import Path

from run_batch.io.coordination.lease import STALE_SECONDS, Lease, LeaseHeldError, file_age, holder_of, refuse_live

_FOLDER = "claims"
# Many claims are of one process: whether it lives is asked once in a while, not for each.
_BELIEVED_SECONDS = 5.0


class Claims:
    """The claims of this process, from any of its threads."""

    def __init__(self, run_folder: Path, lease: Lease) -> None:
        """Args:
        run_folder: the folder that all leases of the job lie in, at any depth.
        lease: of this process, taken.
        """
        self._run_folder = run_folder
        self._folder = run_folder / _FOLDER
        self._lease = lease
        self._content = b""
        self._numbers: dict[int, int] = {}
        self._dead: dict[str, tuple[float, bool]] = {}

    def take(self, shard: int) -> bool:
        """Claim a shard; whether it is ours now.

        Raises:
            OSError: the folder cannot be written to.
        """
        if shard in self._numbers:
            return True
        number = 0
        while not self._create(self._path(shard, number)):
            try:
                if not self._is_dead(self._path(shard, number)):
                    return False
                number += 1
            except FileNotFoundError:
                pass  # released just now
        self._numbers[shard] = number
        if number and not self._still_dead(self._path(shard, number - 1)):
            self._path(shard, self._numbers.pop(shard)).unlink(missing_ok=True)
            return False
        return True

    def took_over(self, shard: int) -> bool:
        """Whether a process that is dead had claimed it before."""
        return self._numbers.get(shard, 0) > 0

    def is_free(self, shard: int) -> bool:
        """Whether `take` can be expected to succeed."""
        number = 0
        with contextlib.suppress(FileNotFoundError):
            while self._is_dead(self._path(shard, number)):
                number += 1
            return False
        return True

    def release(self, shard: int) -> None:
        """Nobody needs to mind this shard any more: it is committed, or this process ends."""
        number = self._numbers.pop(shard, -1)
        # The lowest first: as long as ours is the only one, nobody else can make it.
        for n in range(number + 1):
            with contextlib.suppress(OSError):
                self._path(shard, n).unlink(missing_ok=True)

    def release_all(self) -> None:
        for shard in list(self._numbers):
            self.release(shard)

    def _path(self, shard: int, number: int) -> Path:
        return self._folder / f"{shard}.{number}"

    def _create(self, path: Path) -> bool:
        if not self._content:
            held = holder_of(self._lease.path)
            name = str(self._lease.path.relative_to(self._run_folder))
            self._content = json.dumps({"lease": name, "holder": held and asdict(held)}).encode()
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except FileExistsError:
            return False
        except FileNotFoundError:
            self._folder.mkdir(exist_ok=True)
            return self._create(path)
        try:
            os.write(descriptor, self._content)
            # After a power cut, nobody could tell whose an empty one is, and all would wait for it to become stale.
            os.fsync(descriptor)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        return True

    def _still_dead(self, path: Path) -> bool:
        """Others may have released a dead claim, and claimed the shard anew, while this process went past it."""
        try:
            return self._is_dead(path)
        except FileNotFoundError:
            return True

    def _is_dead(self, path: Path) -> bool:
        """Whether the process that made a claim has ended.

        Raises:
            FileNotFoundError: the claim has been released.
        """
        content = path.read_text()
        before, dead = self._dead.get(content, (0.0, False))
        # Who is dead stays so.
        if dead or (before and time.monotonic() - before < _BELIEVED_SECONDS):
            return dead
        try:
            claim = json.loads(content)
            lease = self._run_folder / claim["lease"]
        except (ValueError, TypeError, KeyError):
            return file_age(path) > STALE_SECONDS  # not written yet; its process may have died just then
        dead = _has_ended(lease, claim["holder"])
        self._dead[content] = (time.monotonic(), dead)
        return dead


def _has_ended(lease: Path, holder: dict[str, object] | None) -> bool:
    try:
        found = holder_of(lease)
        if found is None or asdict(found) != holder:
            return True
        refuse_live(lease)
    except FileNotFoundError:
        return True
    except LeaseHeldError:
        return False
    return True


def remove_claims(run_folder: Path) -> None:
    """Remove what dead processes have left of claims: the job is complete.

    Raises:
        OSError: one cannot be removed.
    """
    for claim in (run_folder / _FOLDER).glob("*"):
        claim.unlink(missing_ok=True)


def remove_folder(run_folder: Path) -> None:
    """Remove the folder of all claims, if there are none; the next claim makes it again."""
    with contextlib.suppress(OSError):
        (run_folder / _FOLDER).rmdir()


def claimed(run_folder: Path) -> set[int]:
    """The shards with a claim of anybody, alive or dead.

    Raises:
        OSError: the folder cannot be read.
    """
    try:
        names = [entry.name for entry in os.scandir(run_folder / _FOLDER)]
    except FileNotFoundError:
        return set()
    return {int(name.partition(".")[0]) for name in names if name[0].isdigit()}
