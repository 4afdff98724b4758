"""What a whole job takes, by what a few of its rows took: each figure says what it was measured on."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from run_batch.jobs.trial.timed_generation import TrialRun


@dataclass(frozen=True, slots=True)
class Measured:
    """What a trial has measured.

    Attributes:
        run: of the rows in the engine.
        tried: number of rows that were mapped, or failed.
        mapping_seconds: that mapping them took, in one worker.
        result_bytes: of their results and carried columns, before compression.
    """

    run: TrialRun
    tried: int
    mapping_seconds: float
    result_bytes: int


@dataclass(frozen=True, slots=True)
class Forecast:
    """A job on one engine, as if all of its rows were like the rows it is based on.

    Attributes:
        rows: of the job.
        based_on_rows: that were generated.
        rows_at_once: of these, in the engine.
        most_rows_at_once: that the engine runs.
        measured_seconds: that these rows took in the engine.
        start_seconds: of the engine; in no other figure.
        engine_rows_per_second, engine_tokens_per_second: measured; of generated tokens.
        worker_rows_per_second: mapped by one worker process; measured.
        workers: of the job.
        shares_cores: engine and workers run on the same cores.
        rows_per_second, seconds, gpu_hours, prompt_tokens, generated_tokens: of the job.
        result_bytes: of the job, before compression.
        gpus: of the engine.
    """

    rows: int
    based_on_rows: int
    rows_at_once: int
    most_rows_at_once: int
    measured_seconds: float
    start_seconds: float
    engine_rows_per_second: float
    engine_tokens_per_second: float
    worker_rows_per_second: float
    workers: int
    shares_cores: bool
    rows_per_second: float
    seconds: float
    gpus: int
    gpu_hours: float
    prompt_tokens: float
    generated_tokens: float
    result_bytes: float


def forecast(measured: Measured, rows: int, workers: int, gpus: int) -> Forecast | None:
    """The forecast for a job; None if no row was generated.

    Args:
        rows: of the job.
        workers: worker processes of the job.
        gpus: of one engine; 0 for an engine on the CPU.
    """
    run, generations = measured.run, measured.run.first.successes
    count, steady = len(generations), max(run.steady.wall_seconds, 1e-6)
    if not count or not run.steady.successes:
        return None
    engine = len(run.steady.successes) / steady
    worker = measured.tried / max(measured.mapping_seconds, 1e-6)
    # Beside a GPU, workers map while the engine runs; on a CPU both take their time of the same cores.
    speed = min(engine, worker * workers) if gpus else 1 / (1 / engine + 1 / (worker * workers))
    return Forecast(
        rows=rows,
        based_on_rows=count,
        rows_at_once=min(count, run.rows_at_once),
        most_rows_at_once=run.rows_at_once,
        measured_seconds=steady,
        start_seconds=run.start_seconds,
        engine_rows_per_second=engine,
        engine_tokens_per_second=sum(generation.generated_tokens for generation in run.steady.successes) / steady,
        worker_rows_per_second=worker,
        workers=workers,
        shares_cores=not gpus,
        rows_per_second=speed,
        seconds=rows / speed,
        gpus=gpus,
        gpu_hours=gpus * rows / speed / 3600,
        prompt_tokens=rows * _mean([generation.prompt_tokens for generation in generations]),
        generated_tokens=rows * _mean([generation.generated_tokens for generation in generations]),
        result_bytes=rows * measured.result_bytes / measured.tried,
    )


def _mean(values: Sequence[int]) -> float:
    return sum(values) / len(values)


def forecast_lines(found: Forecast | None) -> list[str]:
    """The forecast for people."""
    if found is None:
        return ["no forecast: no row was generated"]
    where = "on the same cores as the engine" if found.shares_cores else "beside the engine"
    gpu_hours = f"about {_rounded(found.gpu_hours)}, by {found.gpus} at once" if found.gpus else "none (a CPU engine)"
    return [
        f"forecast for {found.rows:,} rows, if they are like the {found.based_on_rows} that were generated here:",
        f"  engine: about {_rounded(found.engine_rows_per_second)} rows/s and "
        f"{_rounded(found.engine_tokens_per_second)} generated tokens/s ({found.based_on_rows} rows in "
        f"{found.measured_seconds:.2f} s, {found.rows_at_once} at once; start-up, {found.start_seconds:.1f} s, not "
        "counted)",
        *_on_few_rows(found),
        f"  mapping: about {_rounded(found.worker_rows_per_second)} rows/s by one worker process; the job has "
        f"{found.workers}, {where}",
        f"  time: about {_duration(found.seconds)} with one engine ({_rounded(found.rows_per_second)} rows/s)",
        f"  GPU hours: {gpu_hours}",
        f"  tokens: about {_rounded(found.prompt_tokens)} of prompts and {_rounded(found.generated_tokens)} generated",
        f"  results: about {_size(found.result_bytes)} before Parquet compresses them",
    ]


def _on_few_rows(found: Forecast) -> list[str]:
    if found.rows_at_once >= found.most_rows_at_once:
        return []
    return [
        f"    the job runs up to {found.most_rows_at_once} at once, which is usually faster: more rows (--rows) are "
        "likely to show more, and less time",
    ]


def _rounded(value: float) -> str:
    """Two digits that count: a few rows tell no more."""
    if value <= 0:
        return "0"
    digits = 1 - math.floor(math.log10(value))
    return f"{round(value, digits):,.{max(digits, 0)}f}"


def _duration(seconds: float) -> str:
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{_rounded(seconds / length)} {unit}"
    return f"{_rounded(seconds)} seconds"


def _size(nbytes: float) -> str:
    for unit, length in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if nbytes >= length:
            return f"{_rounded(nbytes / length)} {unit}"
    return f"{_rounded(nbytes)} bytes"
