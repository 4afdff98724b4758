"""The lease on a share, from before the engine loads to the end of the run: one process at a time works on a share."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator

from run_batch.io.coordination.claims import remove_claims_folder
from run_batch.io.coordination.lease import Lease, LeaseHeldError
from run_batch.io.outputs.shards import ShardStore
from run_batch.jobs.job.errors import RunError, storage_errors, storage_failed
from run_batch.jobs.job.shares import LOOK_SECONDS, Share, engines_lease_name
from run_batch.jobs.watch.run_end import noting_end


@contextlib.contextmanager
def output_folder(store: ShardStore) -> Iterator[None]:
    """Create the output folder. One that is still empty at the end, because the job did not start, is removed.

    Raises:
        RunError: it cannot be created.
    """
    made = []
    try:
        with storage_errors(f"output.path {store.folder} cannot be written to"):
            made = store.create()
        yield
    finally:
        if store.run_folder in made:
            remove_claims_folder(store.run_folder)
        for folder in reversed(made):
            with contextlib.suppress(OSError):
                folder.rmdir()


@contextlib.contextmanager
def share_lease(store: ShardStore, share: Share) -> Iterator[Lease]:
    """Hold the lease on a share, in an output folder that is there.

    Raises:
        RunError: another run works on the share. Not a JobError: nothing is wrong with the job, and the same command
            goes on with it later.
    """
    with _held(Lease(store.own_folder, share.label), store, share) as lease, noting_end(store, lease):
        yield lease


@contextlib.contextmanager
def engines_lease(store: ShardStore, share: Share) -> Iterator[Lease]:
    """Hold the lease on starting engines for a share, in an output folder that is there.

    Raises:
        RunError: another run has engines for the share.
    """
    with _held(Lease(store.run_folder, engines_lease_name(share)), store, share) as lease:
        yield lease


@contextlib.contextmanager
def _held(lease: Lease, store: ShardStore, share: Share) -> Iterator[Lease]:
    try:
        try:
            dead = _take(lease, share)
        except OSError as error:
            raise storage_failed(f"output.path {store.folder} cannot be written to", error) from None
        except LeaseHeldError as error:
            raise RunError(f"output.path {store.folder} is in use by another run: {error}") from None
        if dead is not None:
            print(f"taking over from a run that has died ({dead})", file=sys.stderr)
        yield lease
    finally:
        lease.release()


def _take(lease: Lease, share: Share) -> str | None:
    """Take the lease; the dead process that had it, if any.

    A task that a scheduler has started waits for a stale lease: it was started anew on another machine because the
    first one has failed, and would not be started a second time.

    Raises:
        LeaseHeldError, OSError: see Lease.take.
    """
    told = False
    while True:
        try:
            dead = lease.take()
            return dead.describe() if dead is not None else None
        except LeaseHeldError as error:
            is_scheduled = share.count > 1 or "SLURM_JOB_ID" in os.environ
            if error.seconds is None or not is_scheduled:
                raise
            if not told:
                print(f"waiting for share {share.label}: {error}", file=sys.stderr, flush=True)
            told = True
            time.sleep(LOOK_SECONDS)
