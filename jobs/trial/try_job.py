"""`run-batch try`: runs a few rows of a job from end to end, shows what became of them, and forecasts the job.

It writes nothing, neither results nor a lock: the output folder is not looked at, whatever it holds.
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from run_batch.jobs.engine.start_vllm import start_vllm
from run_batch.jobs.engine.vllm_engine import Engine
from run_batch.jobs.job.config import JobConfig
from run_batch.jobs.job.errors import EXIT_COMPLETE, EXIT_TOO_MANY_FAILURES, are_too_many
from run_batch.jobs.job.plan import Plan
from run_batch.jobs.job.pooling import is_pooling
from run_batch.jobs.job.prepare import PreparedJob
from run_batch.jobs.job.rows import PooledForm, RowFailure, RowResult
from run_batch.jobs.job.work import Work
from run_batch.jobs.machine.cores import usable_cores
from run_batch.jobs.machine.gpus import gpus_per_engine
from run_batch.jobs.mapping.mapping_faults import mapping_faults
from run_batch.jobs.results.result_table import ShardTables
from run_batch.jobs.trial.display import TriedRow, as_json, as_text, tried_rows
from run_batch.jobs.trial.forecast import Forecast, Measured, forecast
from run_batch.jobs.trial.named_rows import find_rows
from run_batch.jobs.trial.timed_generation import Generated, TrialRun, run_rows
from run_batch.jobs.trial.trial_rows import TrialRows, map_rows
from run_batch.jobs.watch.loading_line import loading_line


@dataclass(frozen=True, slots=True)
class Trial:
    """What to try, and how to show it.

    Attributes:
        rows: so many first rows of the input, where `ids` is empty.
        ids: of the rows to try instead.
        full: show long prompts and answers whole.
        as_json: one line of JSON instead of text for people.
    """

    rows: int
    ids: Sequence[str] = ()
    full: bool = False
    as_json: bool = False


@contextlib.contextmanager
def _leaving_nothing() -> Iterator[None]:
    """Remove what libraries write beside results: compiled files of plugins, and vLLM's files for temporary use."""
    with tempfile.TemporaryDirectory(prefix="run-batch-try-", ignore_cleanup_errors=True) as folder:
        # For this process, which may have looked the folder up already, and for those that it starts.
        own, inherited = (sys.dont_write_bytecode, tempfile.tempdir), dict(os.environ)
        sys.dont_write_bytecode, tempfile.tempdir = True, folder
        os.environ.update(TMPDIR=folder, PYTHONDONTWRITEBYTECODE="1")
        try:
            yield
        finally:
            sys.dont_write_bytecode, tempfile.tempdir = own
            for name in ("TMPDIR", "PYTHONDONTWRITEBYTECODE"):
                os.environ.pop(name)
                os.environ.update({name: inherited[name]} if name in inherited else {})


def try_job(
    job: PreparedJob, trial: Trial, start_engine: Callable[[JobConfig], Engine] = start_vllm
) -> tuple[str, int]:
    """Try some rows.

    Args:
        start_engine: starts the engine; vLLM's when left out.

    Returns:
        What to show, and the exit code.

    Raises:
        JobError: the job is at fault: its settings, its model, a mapper that does not give the same twice.
        RunError: the engine fails, or the input is damaged.
        Interrupted: a signal has come.
    """
    with mapping_faults():
        wanted = find_rows(job, trial.ids) if trial.ids else range(min(trial.rows, job.plan.num_rows))
    with _leaving_nothing():
        with loading_line(quiet=False, what="mapping the rows"):
            rows = map_rows(job, wanted)
        nothing = Generated()
        run = TrialRun(nothing, nothing, 0.0, 0)
        forms: list[PooledForm | None] = []

        def start() -> Engine:
            with loading_line(quiet=False):
                engine = start_engine(job.config)
            forms[:] = [engine.pooled if is_pooling(job.config) else None]
            return engine

        if rows.mapped:
            run = run_rows(start, rows.mapped, job.config.errors)
    tried = tried_rows(rows, run.first)
    found = _forecast(job, rows, tried, run, forms[0] if forms else None)
    shown = as_json(tried, found) if trial.as_json else as_text(tried, found, trial.full)
    return shown, _exit_code(job.config, tried)


def _exit_code(config: JobConfig, tried: Sequence[TriedRow]) -> int:
    failed, most = sum(isinstance(row.result, RowFailure) for row in tried), config.errors.max_fraction
    if not are_too_many(failed, len(tried), most):
        return EXIT_COMPLETE
    print(f"{failed} of {len(tried)} rows failed: more than errors.max_fraction = {most} allows", file=sys.stderr)
    return EXIT_TOO_MANY_FAILURES


def _forecast(
    job: PreparedJob, rows: TrialRows, tried: Sequence[TriedRow], run: TrialRun, pooled: PooledForm | None
) -> Forecast | None:
    from vllm.platforms import current_platform

    gpus = 0 if current_platform.is_cpu() else gpus_per_engine(job.config)
    with mapping_faults():
        result_bytes = _result_bytes(job, [row.result for row in tried], pooled)
    measured = Measured(run, len(tried), rows.seconds, result_bytes)
    return forecast(measured, job.plan.num_rows, job.config.preprocess.workers or usable_cores(), gpus)


def _result_bytes(job: PreparedJob, results: Sequence[RowResult], pooled: PooledForm | None) -> int:
    """What the rows take in a shard, with their carried columns, before compression."""
    rows = [result.row for result in results]
    tables = ShardTables(job.config, job.source, Work(Plan(job.plan.num_rows, 1), rows), set(rows).__contains__, pooled)
    return sum(table.nbytes for result in results for table, _ in tables.build(result.row, [result]))
