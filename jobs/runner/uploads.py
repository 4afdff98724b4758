"""Copies of committed shards in `output.upload`: made by a thread of their own, which no row waits for.

Each process copies what it commits. The one that ends last copies what those that have died left, and then writes
`_SUCCESS`; it was taken away before the first copy, under the same lease, so that it never stands beside a shard that
is about to change. The local folder stays the place of truth.
"""

import math
import threading
import time
from collections import deque

from run_batch.io import transient
from run_batch.io.coordination.lease import Lease
from run_batch.io.outputs.remote_folder import RemoteError, remote_folder, shown_url
from run_batch.io.outputs.shards import SUCCESS, ShardError
from run_batch.io.transient import jittered, may_pass, retry
from run_batch.jobs.job.errors import Interrupted, MayPassError, RunError, storage_errors
from run_batch.jobs.job.job_record import COMPLETE_LEASE, wait_for
from run_batch.jobs.job.prepare import PreparedJob
from run_batch.jobs.job.shares import begun_shares, has_engines, is_running
from run_batch.jobs.machine.last_words import say
from run_batch.jobs.machine.stop_signals import StopRequest
from run_batch.jobs.results.shard_commits import complete_shards, read_commit
from run_batch.jobs.results.upload_ledger import UploadLedger

# Seconds between the tries of one shard; the last one again and again.
_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)
_LAST_PAUSE = 4.0
# A wait for copies at the end of a run is told of after so long.
_SILENT_SECONDS = 2.0
# A wait without a limit would look like one for storage that hangs.
_LOOK_SECONDS = 0.1


class Uploads:
    """The shards of this process that are to be copied, and the thread that does it, one after the other."""

    def __init__(self, job: PreparedJob, url: str) -> None:
        """Start the thread; it begins with what earlier runs left, if no other process works on the job."""
        self._job, self._folder = job, remote_folder(url)
        self._ledger = UploadLedger(job.store, self._folder.url)
        self._queue: deque[int] = deque()
        self._ending = threading.Event()
        self._problem: Exception | None = None
        self._failures = 0  # in succession
        self._failed = 0
        self._is_marked = True  # as far as is known, `_SUCCESS` is there
        self._thread = threading.Thread(target=self._run, name="uploads", daemon=True)
        self._thread.start()

    def add(self, shard: int) -> None:
        """Have a shard copied that is committed."""
        self._queue.append(shard)

    def drain(self, stop: StopRequest | None = None) -> RunError | None:
        """Wait until all shards are copied; the error to end with where that fails.

        A failure that may pass is waited for as long as `errors.storage_seconds` after the last byte that was sent.

        Raises:
            Interrupted: a stop has been requested.
        """
        self._ending.set()
        seconds = self._job.config.errors.storage_seconds
        moved, since, failed = self._folder.moved, time.monotonic(), self._failed
        tell_at = since + _SILENT_SECONDS
        while self._thread.is_alive():
            self._thread.join(_LOOK_SECONDS)
            if time.monotonic() > tell_at:
                tell_at = math.inf
                say(f"output.upload: the run waits for {len(self._queue)} shards to be copied to {self._folder.url}")
            if stop is not None and stop.requested:
                raise Interrupted
            if self._folder.moved != moved:
                moved, since = self._folder.moved, time.monotonic()
            problem = self._problem
            if problem is not None and self._failed > failed and not _passes(problem):
                return RunError(self._left(problem))
            if seconds and time.monotonic() - since > seconds:
                return MayPassError(f"{self._left(problem or 'no answer')}. This may pass")
        if self._problem is not None and not isinstance(self._problem, RemoteError | ShardError | OSError):
            raise self._problem  # a bug
        return None

    def _left(self, problem: Exception | str) -> str:
        return (
            f"output.upload: {len(self._queue)} shards are not copied: {problem}. All results are in "
            f"{self._job.store.folder}; the same command goes on with the copies"
        )

    def _run(self) -> None:
        try:
            while not self._ending.is_set() or self._queue:
                if not self._queue:
                    self._ending.wait(_LOOK_SECONDS)
                elif self._try(self._queue[0]):
                    self._queue.popleft()
        except Exception as error:
            self._problem = error

    def _try(self, shard: int) -> bool:
        """Copy a shard; whether that is done. After a failure, wait."""
        try:
            self._unmark()
            self._copy(shard)
        except (RemoteError, ShardError, OSError) as error:
            self._problem = error
            self._failures += 1
            self._failed += 1
            if self._failures == 1:
                say(f"output.upload: {error}; it is tried again while the run goes on")
            self._pause()
            return False
        if self._failures:
            say("output.upload: shards are copied again")
        self._problem, self._failures = None, 0
        return True

    def _pause(self) -> None:
        pause = next(jittered([_PAUSES[min(self._failures, len(_PAUSES)) - 1]]))
        if self._ending.is_set():  # nothing else is left to do
            time.sleep(min(pause, _LAST_PAUSE))
        else:
            self._ending.wait(pause)

    def _copy(self, shard: int) -> None:
        path = self._job.store.path(shard)
        while path.exists():  # one that was damaged is made again, and comes again
            before = path.stat()
            commit = read_commit(self._job.store, shard)
            etag = self._folder.put(path, path.name)
            now = path.stat()
            # Another process may write the shard again meanwhile: the copy that is made last has to be of that.
            if (now.st_ino, now.st_mtime_ns) == (before.st_ino, before.st_mtime_ns):
                self._ledger.note(commit, etag)
                return

    def _unmark(self) -> None:
        """Before the first copy: remove `_SUCCESS`, while nobody is about to write it."""
        if not self._is_marked:
            return
        lease = Lease(self._job.store.run_folder, COMPLETE_LEASE)
        wait_for(lease)
        try:
            self._folder.remove(SUCCESS)
        finally:
            lease.release()
        self._is_marked = False


def start_uploads(job: PreparedJob) -> Uploads | None:
    """Start to copy what a run commits, and what earlier runs left where no other process works on the job; None where
    nothing is to be copied.

    Raises:
        RunError: the output folder cannot be read.
    """
    url = job.config.output.upload
    if url is None:
        return None
    uploads = Uploads(job, url)
    if not _others_run(job, but=job):
        for shard in _left(job, url):
            uploads.add(shard)
    return uploads


def finish_uploads(job: PreparedJob) -> None:
    """Where a job is complete and no other process works on it: copy what is not copied yet, then `_SUCCESS`.

    To be called once this process has given up its share: of several that end at the same time, the last one finds no
    other.

    Raises:
        RunError: something cannot be copied; MayPassError where that may pass.
    """
    url = job.config.output.upload
    if url is None or len(complete_shards(job.store, job.plan)) < job.plan.num_shards or _others_run(job):
        return
    left = _left(job, url)
    if left:
        uploads = Uploads(job, url)
        for shard in left:
            uploads.add(shard)
        problem = uploads.drain()
        if problem is not None:
            raise problem
    _mark(job, url)


def _mark(job: PreparedJob, url: str) -> None:
    """Write `_SUCCESS`, unless a shard has been written again meanwhile."""
    lease = Lease(job.store.run_folder, COMPLETE_LEASE)
    with storage_errors(f"output.path {job.store.folder} cannot be written to"):
        wait_for(lease)
    try:
        if job.store.is_complete() and not _left(job, url):
            retry(lambda: remote_folder(url).write(SUCCESS, b""), transient.REMOTE_PAUSES)
    except RemoteError as error:
        kind = MayPassError if error.passes else RunError
        raise kind(f"output.upload: {error}; the same command writes it") from error
    finally:
        lease.release()


def _left(job: PreparedJob, url: str) -> list[int]:
    """The shards that are committed and not copied."""
    with storage_errors(f"output.path {job.store.folder} cannot be read"):
        return UploadLedger(job.store, shown_url(url)).missing_of(job.plan)


def _others_run(job: PreparedJob, but: PreparedJob | None = None) -> bool:
    """Whether other processes work on the job.

    Args:
        but: the share that this process works on.
    """
    folder = job.store.run_folder
    with storage_errors(f"output.path {job.store.folder} cannot be read"):
        shares = [share for share in begun_shares(folder) if but is None or share != but.share]
        return has_engines(folder) or any(is_running(folder, share) for share in shares)


def _passes(error: Exception) -> bool:
    return error.passes if isinstance(error, RemoteError) else may_pass(error)
