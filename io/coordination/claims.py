"""Claims: which process works on which shard, where several work on one folder.

A claim on shard K is a file `K.N` made by exclusive create. It names the lease of its process (see lease.py), and
counts as long as that process holds it. A process claims a shard by creating the file with the lowest free N, where all
lower ones are of dead processes. Only processes that want the same shard look at the same files, and a claim costs one
create and one unlink.
"""

import contextlib
import json
import os
import time
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path

from run_batch.io.coordination.lease import STALE_SECONDS, Lease, LeaseHeldError, check_stale, file_age, holder_of
from run_batch.io.files import list_names, read_file
from run_batch.io.transient import retry

_FOLDER = "claims"
# A process has many claims: whether it is alive is asked this often, not for each claim.
_ALIVE_SECONDS = 5.0


class Claims:
    """The claims of this process; may be used from any of its threads."""

    def __init__(self, run_folder: Path, lease: Lease) -> None:
        """Start without any claim.

        Args:
            run_folder: the folder of the claims; all leases of the job are in it, at any depth.
            lease: the lease of this process, taken.
        """
        self._run_folder = run_folder
        self._folder = run_folder / _FOLDER
        self._lease = lease
        self._content = b""
        self._numbers: dict[int, int] = {}
        self._dead: dict[bytes, tuple[float, bool]] = {}

    def take(self, shard: int) -> bool:
        """Claim a shard, unless another process has it.

        Returns:
            Whether this process has the shard, now or since before.

        Raises:
            OSError: the folder cannot be written to.
        """
        if shard in self._numbers:
            return True
        while (number := self._make_claim(shard)) is not None:
            # While this process went past a dead claim, others may have released it, and claimed the shard from 0 on.
            if number == 0 or self._is_still_dead(self._path(shard, number - 1)):
                self._numbers[shard] = number
                return True
            self._path(shard, number).unlink(missing_ok=True)
        return False

    def _make_claim(self, shard: int) -> int | None:
        """Make a claim after those of dead processes; its number, or None if another process has the shard."""
        number = 0
        while not self._create(self._path(shard, number)):
            try:
                if not self._is_dead(self._path(shard, number)):
                    return None
                number += 1
            except FileNotFoundError:
                pass  # released just now
        return number

    def is_free(self, shard: int) -> bool:
        """Whether `take` is likely to succeed for a shard that this process has not claimed."""
        number = 0
        with contextlib.suppress(FileNotFoundError):
            while self._is_dead(self._path(shard, number)):
                number += 1
            return False
        return True

    def release(self, shard: int) -> None:
        """Give up a claim, as the shard is committed or this process ends; removes the dead claims below it too."""
        number = self._numbers.pop(shard, -1)
        # Ours, the highest, goes last: were it removed first, one process could claim its number, past the dead claims,
        # and once those are removed another could claim number 0.
        for n in range(number + 1):
            with contextlib.suppress(OSError):
                self._path(shard, n).unlink(missing_ok=True)

    def release_all(self) -> None:
        """Give up all claims of this process, but those that others have gone past because it lost its lease."""
        for shard, number in list(self._numbers.items()):
            if retry(self._path(shard, number + 1).exists):
                del self._numbers[shard]
            else:
                self.release(shard)

    def remove_dead(self) -> None:
        """Remove the claims of dead processes on shards that no live one has a claim on.

        Raises:
            OSError: a claim cannot be read or removed.
        """
        claims: defaultdict[str, list[Path]] = defaultdict(list)
        for path in self._folder.glob("[0-9]*.*"):
            claims[path.stem].append(path)
        for paths in claims.values():
            if all(map(self._is_still_dead, paths)):
                for path in paths:
                    path.unlink(missing_ok=True)

    def _path(self, shard: int, number: int) -> Path:
        return self._folder / f"{shard}.{number}"

    def _create(self, path: Path) -> bool:
        """Create a claim of this process; False if the file is there already."""
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
            # A power cut must not leave an empty file: it names no process, so all would wait for it to become stale.
            os.fsync(descriptor)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)
        return True

    def _is_still_dead(self, path: Path) -> bool:
        """Whether a claim that was found dead is there and dead still: its file may be gone, or a new claim by now."""
        try:
            return self._is_dead(path)
        except FileNotFoundError:
            return False

    def _is_dead(self, path: Path) -> bool:
        """Whether a claim has stopped to count: its process has ended, or has lost or released its lease.

        Raises:
            FileNotFoundError: the claim has been released.
        """
        content = read_file(path)
        before, dead = self._dead.get(content, (0.0, False))
        # A dead process stays dead; a live one may have died since.
        if dead or (before and time.monotonic() - before < _ALIVE_SECONDS):
            return dead
        try:
            claim = json.loads(content)
            lease = self._run_folder / claim["lease"]
        except (ValueError, TypeError, KeyError):
            return (
                file_age(path) > STALE_SECONDS
            )  # its process has not written it yet, or died before; or it is damaged
        dead = _is_lost(lease, claim["holder"])
        self._dead[content] = (time.monotonic(), dead)
        return dead


def _is_lost(lease: Path, holder: dict[str, object] | None) -> bool:
    """Whether `holder` does not hold the lease any more."""
    try:
        found = holder_of(lease)
        if found is None or asdict(found) != holder:
            return True
        check_stale(lease)
    except FileNotFoundError:
        return True
    except LeaseHeldError:
        return False
    return True


def remove_claims_folder(run_folder: Path) -> None:
    """Remove the folder of the claims if it is empty; the next claim creates it again."""
    with contextlib.suppress(OSError):
        (run_folder / _FOLDER).rmdir()


def claimed(run_folder: Path) -> set[int]:
    """Shards on which any process, alive or dead, has a claim.

    Raises:
        OSError: the folder cannot be read.
    """
    try:
        names = list_names(run_folder / _FOLDER)
    except FileNotFoundError:
        return set()
    return {int(name.partition(".")[0]) for name in names if name[0].isdigit()}
