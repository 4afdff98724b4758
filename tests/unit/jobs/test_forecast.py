"""What a job takes, from what a few of its rows took."""

from dataclasses import replace
from typing import Any

import pytest

from run_batch.jobs.job.rows import Generation, RowFailure
from run_batch.jobs.trial.forecast import Forecast, Measured, forecast, forecast_lines
from run_batch.jobs.trial.timed_generation import Generated, TrialRun


def generated(count: int, seconds: float) -> Generated:
    rows = {row: Generation(row, ("text",), "stop", 500, 20 + row) for row in range(count)}
    return Generated({**rows, count: RowFailure(count, "refused", "")}, wall_seconds=seconds)


# 4 rows: 8 s the first time, 2 s the second; of 5 rows tried, one failed. One worker maps 10 rows/s.
MEASURED = Measured(TrialRun(generated(4, 8.0), generated(4, 2.0), 60.0, 256), 5, 0.5, 5 * 200)


def of(rows: int, workers: int, gpus: int, measured: Measured = MEASURED) -> Forecast:
    found = forecast(measured, rows, workers, gpus)
    assert found is not None
    return found


def test_beside_a_gpu_the_slower_of_engine_and_workers_counts() -> None:
    assert of(72_000, 8, 4).rows_per_second == 2.0 and of(72_000, 8, 4).seconds == 36_000.0
    assert of(72_000, 8, 4).gpu_hours == 40.0
    slow = replace(MEASURED, mapping_seconds=50.0)
    assert of(72_000, 8, 1, slow).rows_per_second == pytest.approx(0.8)


def test_on_a_cpu_engine_and_workers_share_the_cores() -> None:
    found = of(1000, 2, 0)
    assert found.rows_per_second == pytest.approx(1 / (1 / 2 + 1 / 20)) and found.gpu_hours == 0


def test_tokens_and_results_are_those_of_the_rows_times_their_number() -> None:
    found = of(1_000_000, 8, 1)
    assert found.prompt_tokens == 500e6 and found.generated_tokens == pytest.approx(21.5e6)
    assert found.result_bytes == 200e6


def test_no_row_makes_no_forecast() -> None:
    none = TrialRun(generated(0, 1.0), generated(0, 1.0), 1.0, 256)
    assert forecast(Measured(none, 1, 1.0, 10), 100, 1, 1) is None
    assert forecast_lines(None) == ["no forecast: no row was generated"]


def test_the_lines_say_what_the_figures_are_based_on() -> None:
    text = "\n".join(forecast_lines(of(40_000_000, 8, 4)))
    for part in (
        "forecast for 40,000,000 rows, if they are like the 4 that were generated here:",
        "engine: about 2.0 rows/s and 43 generated tokens/s (4 rows in 2.00 s, 4 at once; start-up, 60.0 s, not ",
        "the job runs up to 256 at once, which is usually faster",
        "mapping: about 10 rows/s by one worker process; the job has 8, beside the engine",
        "time: about 230 days with one engine (2.0 rows/s)",
        "GPU hours: about 22,000, by 4 at once",
        "tokens: about 20,000,000,000 of prompts and 860,000,000 generated",
        "results: about 8.0 GB before Parquet compresses them",
    ):
        assert part in text, text
    assert all(
        "about" in line or "GPU hours: none" in line or line[:8] in ("forecast", "    the ")
        for line in text.splitlines()
    )


@pytest.mark.parametrize(
    ("rows", "says"),
    [(2, "about 1.0 seconds"), (200, "about 100 seconds"), (6000, "about 50 minutes"), (72_000, "about 10 hours")],
)
def test_times_are_in_units_for_people(rows: int, says: str) -> None:
    assert any(says in line for line in forecast_lines(of(rows, 8, 1)))


def test_with_as_many_rows_as_the_engine_runs_at_once_nothing_is_said_of_few() -> None:
    full: Any = replace(MEASURED, run=replace(MEASURED.run, rows_at_once=4))
    assert not any("usually faster" in line for line in forecast_lines(of(100, 1, 1, full)))
