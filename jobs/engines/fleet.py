"""The engines of a run while they run: which share each of them does, what becomes of it when one dies.

Every engine starts with a share of its own, and takes shards from the others once that is done, as shares do. One that
dies is started again; after a few deaths in succession, in which it has committed no shard, it is given up. Its share
stays: while no engine works on a share, the fleet holds its lease, so that the engines that run take shards from it;
what they leave of one whose engine was given up, another engine takes over as a whole.
"""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence

from run_batch.io.coordination.claims import Claims
from run_batch.io.coordination.lease import Lease, LeaseHeldError
from run_batch.jobs.engines.engine_process import Ending, EngineProcess, EngineSlot, wait_for_ends
from run_batch.jobs.engines.engines_progress import EnginesProgress
from run_batch.jobs.job.errors import (
    EXIT_BAD_JOB,
    EXIT_COMPLETE,
    EXIT_INTERRUPTED,
    EXIT_RUN_FAILED,
    JobError,
    RunError,
)
from run_batch.jobs.job.prepare import PreparedJob
from run_batch.jobs.job.shares import Share
from run_batch.jobs.machine.stop_signals import SAVE_SECONDS, StopRequest
from run_batch.jobs.watch.run_end import forget_end, note_end

# Pauses before the next start, after each death in succession; after one death more, an engine is given up.
_PAUSES = (1.0, 5.0)
_LOOK_SECONDS = 0.2
# An engine that has generated nothing has nothing to save: it is killed if it does not end within this time.
_LOADING_SECONDS = 3.0

StartEngineProcess = Callable[[EngineSlot, Share], EngineProcess]


class Fleet:
    """The engines of a run.

    Attributes:
        exit_code: of the last engine that failed; 0 while none has.
        undone: shares that no engine has done to its end.
        gave_up: an engine was given up.
    """

    def __init__(
        self,
        job: PreparedJob,
        work: Mapping[EngineSlot, Share],
        start: StartEngineProcess,
        progress: EnginesProgress,
        say: Callable[[str], None],
    ) -> None:
        """Prepare to run.

        Args:
            job: the job, or the share of it that the engines divide.
            work: the share that each engine starts with.
            start: starts the process of an engine.
            say: tells people a line.
        """
        self._job, self._start, self._progress, self._say = job, start, progress, say
        self._due = {slot: (0.0, share) for slot, share in work.items()}
        self._running: list[EngineProcess] = []
        self._idle: list[EngineSlot] = []
        self._deaths = dict.fromkeys(work, 0)
        self._failed: set[EngineSlot] = set()
        self._lent: dict[Share, Lease] = {}
        # Shares whose engine was given up, and those of them that another engine has taken over.
        self._orphans: list[Share] = []
        self._moved: set[Share] = set()
        self.gave_up = False
        self.undone = set(work.values())
        self.exit_code = EXIT_COMPLETE

    def run(self, stop: StopRequest, lease: Lease, check: Callable[[], None]) -> None:
        """Run until every engine has ended.

        Args:
            stop: once it is requested, the engines are asked to end, and none is started.
            lease: of this run.
            check: called now and then.

        Raises:
            JobError: an engine has found that the job is at fault.
            RunError: no engine works.
            LeaseLost: another run has taken over.
        """
        is_told = False
        while self._running or (self._due and not stop.requested):
            if stop.requested and not is_told:
                is_told = True
                for process in self._running:
                    process.stop()
            if not stop.requested:
                self._start_due()
            for process in wait_for_ends(self._running, _LOOK_SECONDS):
                self._ended(process, stop)
            if not stop.requested:
                self._place_orphan()
            self._progress.tick()
            lease.check()
            check()

    def close(self) -> None:
        """End engines that still run, and give up leases."""
        for process in self._running:
            process.stop()
        until = time.monotonic() + (SAVE_SECONDS if self._progress.has_generated else _LOADING_SECONDS)
        left = set(self._running)
        while left and time.monotonic() < until:
            left.difference_update(wait_for_ends(left, _LOOK_SECONDS))
        for process in self._running:
            process.kill()
            process.end()
        for share in list(self._lent):
            self._release(share)

    def _start_due(self) -> None:
        for slot, (due, share) in list(self._due.items()):
            if time.monotonic() >= due:
                del self._due[slot]
                forget_end(self._job.store.run_folder / share.folder)
                self._release(share)
                self._running.append(self._start(slot, share))

    def _ended(self, process: EngineProcess, stop: StopRequest) -> None:
        """Decide what follows the end of an engine's process."""
        self._running.remove(process)
        ending = process.end()
        self._progress.look(process.share)
        if process.share in self._progress.have_committed:
            self._progress.have_committed.remove(process.share)
            self._deaths[process.slot] = 0
        if ending.code == EXIT_COMPLETE:
            self.undone.discard(process.share)
            self._idle.append(process.slot)
        elif ending.code == EXIT_BAD_JOB:
            raise JobError(ending.why)
        elif ending.code == EXIT_INTERRUPTED:
            stop.requested = True  # whoever has stopped one engine means the run
        elif not stop.requested:
            self.exit_code = max(ending.code, EXIT_RUN_FAILED)
            self._failed_to_run(process, ending)

    def _failed_to_run(self, process: EngineProcess, ending: Ending) -> None:
        slot, share = process.slot, process.share
        if ending.problem is not None and ending.problem.of_place:
            self._say(f"{slot.name}: {ending.why}")
            return
        self._deaths[slot] += 1
        self._end_if_none_starts(slot, ending)
        self._lend(share)
        note_end(self._job.store.run_folder / share.folder, ending.code, ending.why)
        if self._deaths[slot] <= len(_PAUSES):
            pause = _PAUSES[self._deaths[slot] - 1]
            self._say(f"{slot.name} has died: {ending.why}. It is started again in {pause:g} s")
            self._due[slot] = (time.monotonic() + pause, share)
        else:
            self._give_up(slot, share, ending)

    def _give_up(self, slot: EngineSlot, share: Share, ending: Ending) -> None:
        self._say(
            f"{slot.name} is given up after {self._deaths[slot]} deaths in succession without a shard in between: "
            f"{ending.why}. The other engines take over what it had"
            + ("; look at its GPU before the next run" if slot.place else "")
        )
        self.gave_up = True
        lease = self._lent.get(share)
        if lease is not None:
            with contextlib.suppress(OSError):
                Claims(self._job.store.run_folder, lease).remove_dead()
        if share not in self._moved:
            self._orphans.append(share)

    def _end_if_none_starts(self, slot: EngineSlot, ending: Ending) -> None:
        """End the run where each engine has failed, by an error of its own, before any has finished a row.

        Raises:
            RunError: that is so.
        """
        if ending.code > 0:
            self._failed.add(slot)
        if self._failed == self._deaths.keys() and not self._progress.has_generated:
            raise RunError(f"none of {len(self._deaths)} engines works. {slot.name}: {ending.why}")

    def _lend(self, share: Share) -> None:
        """Hold the lease of a share that no engine works on now, so that the others may take from it."""
        folder = self._job.store.run_folder / share.folder
        lease = Lease(folder, share.label)
        with contextlib.suppress(LeaseHeldError, OSError):
            folder.mkdir(exist_ok=True)  # an engine that could not begin has removed its own
            lease.take()
            self._lent[share] = lease

    def _release(self, share: Share) -> None:
        lease = self._lent.pop(share, None)
        if lease is not None:
            lease.release()
            with contextlib.suppress(OSError):  # not empty: there are results, or more to do
                lease.path.parent.rmdir()

    def _place_orphan(self) -> None:
        """Have an engine that is done take over what nobody has taken of a share whose engine was given up."""
        if self._running or self._due or not self._idle:
            return
        for share in self._orphans:
            if not self._progress.is_done(share):
                self._orphans.remove(share)
                self._moved.add(share)
                self._due[self._idle.pop()] = (0.0, share)
                return


def divide_job(job: PreparedJob, slots: Sequence[EngineSlot]) -> dict[EngineSlot, Share]:
    """The shares of several engines that divide a job, or a share of it."""
    own, count = job.share, len(slots)
    return {slot: Share(own.index * count + slot.index, own.count * count) for slot in slots}


def make_slots(
    places: Sequence[Mapping[str, str]], cores: Sequence[set[int]], workers: Sequence[int]
) -> list[EngineSlot]:
    """The slots of the engines of this machine."""
    parts = zip(places, cores, workers, strict=True)
    return [EngineSlot(index, place, own, count) for index, (place, own, count) in enumerate(parts)]
