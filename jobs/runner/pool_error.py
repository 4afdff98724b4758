"""A start of the engine is not waited for to its end once the workers have found that the job cannot run."""

from collections.abc import Iterator
from contextlib import contextmanager

from run_batch.jobs.job.errors import EXIT_RUN_FAILED, JobError, RunError
from run_batch.jobs.machine.last_words import end_process
from run_batch.jobs.machine.watchdog import WATCHDOG, Watch
from run_batch.jobs.mapping.worker_pool import WorkerPool

# An engine that is ready within so long lets the run end in the usual way. What hangs in the workers may hang in the
# engine, too, which maps the largest inputs while it starts.
_SECONDS = 60.0


@contextmanager
def ended_by(pool: WorkerPool, step_seconds: float) -> Iterator[None]:
    """Around the start of an engine: this process ends some time after the pool has ended with an error.

    Args:
        step_seconds: of the job; the time is no longer than that, nor than a minute.
    """

    def end(waited: float) -> None:
        error = pool.error
        code = error.exit_code if isinstance(error, JobError | RunError) else EXIT_RUN_FAILED
        end_process(code, f"{error} (the engine was still starting)")

    watch = Watch(min(_SECONDS, step_seconds or _SECONDS), end, progress=lambda: pool.error)
    WATCHDOG.add(watch)
    try:
        yield
    finally:
        WATCHDOG.remove(watch)
