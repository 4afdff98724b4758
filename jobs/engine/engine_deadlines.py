"""How long an engine may take to start, to run a step, and to end; what is done where it takes longer."""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager

from run_batch.jobs.job.errors import EXIT_RUN_FAILED
from run_batch.jobs.machine.last_words import end_process, say
from run_batch.jobs.machine.watchdog import WATCHDOG, Watch

# While an engine starts, a line says so this often.
_TELL_SECONDS = 60.0
# A killed process is dead within a second, unless it hangs in the kernel.
_DEATH_SECONDS = 30.0


class EngineDeadlines:
    """The deadlines of one engine after the other.

    Attributes:
        step_seconds: the limit of a step; 0 for none.
        step_hangs: the last step has taken longer.
    """

    def __init__(
        self, step_seconds: float, start_seconds: float, kill: Callable[[], bool], save: Callable[[], None]
    ) -> None:
        """Set the limits.

        Args:
            start_seconds: the limit of a start, and of an end; 0 for none.
            kill: kills the engine's processes, so that its step ends; False where the engine has none.
            save: makes finished rows durable, before this process ends.
        """
        self.step_seconds, self._start_seconds = step_seconds, start_seconds
        self._kill, self._save = kill, save
        self._stepping = Watch(step_seconds, self._end_hanging_step, on_wait=self._end_undead)
        self.step_hangs = False
        self._told = 0

    def step(self) -> AbstractContextManager[None]:
        """Around a step: the engine is killed where it takes too long, or this process ends."""
        self.step_hangs = False
        return WATCHDOG.watching(self._stepping)

    def start(self) -> AbstractContextManager[None]:
        """Around the start of an engine: this process ends where it takes too long."""
        return self._watching("start")

    def end(self) -> AbstractContextManager[None]:
        """Around the end of an engine: the same."""
        return self._watching("end")

    def _watching(self, what: str) -> AbstractContextManager[None]:
        """Watch the `start` or the `end` of an engine."""

        def end(waited: float) -> None:
            end_process(
                EXIT_RUN_FAILED,
                f"the engine has not {what}ed within {self._start_seconds:g} s (errors.start_seconds). See what it "
                "waits for with --verbose: a file system, a GPU, another process. Then run the same command again, "
                "with a larger errors.start_seconds if it only needs more time",
                self._save,
            )

        return WATCHDOG.watching(Watch(self._start_seconds, end, on_wait=functools.partial(self._tell, what)))

    def _tell(self, what: str, waited: float) -> None:
        """Say now and then that an engine still starts or ends."""
        told, self._told = self._told, int(waited // _TELL_SECONDS)
        if self._told > told:
            say(f"the engine is {what}ing, for {waited / 60:.0f} min so far")

    def _end_hanging_step(self, waited: float) -> None:
        """Kill the engine's processes; this process, where the engine has none. Called in the watchdog's thread."""
        self.step_hangs = True
        if not self._kill():
            self._end_process()

    def _end_undead(self, waited: float) -> None:
        """End this process where the engine's has been killed and does not die: it hangs in the kernel."""
        if self.step_hangs and waited > self.step_seconds + _DEATH_SECONDS:
            self._end_process()

    def _end_process(self) -> None:
        end_process(
            EXIT_RUN_FAILED,
            f"the engine has made no progress for {self.step_seconds:g} s (errors.step_seconds); finished rows are "
            "saved, run the same command again to go on",
            self._save,
        )
