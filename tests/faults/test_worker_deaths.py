"""Worker processes that die: which row is blamed, and that all others are mapped."""

from pathlib import Path

import pytest
from stand_ins import Speed
from standing import make_job

from run_batch.jobs.mapping.worker_pool import BATCH_ROWS

ROWS = 6 * BATCH_ROWS
# The first row of a batch, whose index is also the batch's start, and one in the middle.
PLACES = (2 * BATCH_ROWS, 4 * BATCH_ROWS + 5)


def errors(tmp_path: Path, times: int, place: int) -> tuple[dict[int, str], int]:
    """Run a job in which one row kills its worker up to `times` times; its errors by row, and the number of deaths."""
    deaths = tmp_path / "deaths"
    rows = [f"prompt {i}" if i != place else f"deadly {times} {deaths}" for i in range(ROWS)]
    job = make_job(tmp_path, rows, Speed(step_seconds=0.0))
    code, said = job.run()
    assert code == 0, said
    assert "a worker process has died; another one maps the " in said
    found = job.table()["error"].to_pylist()
    return {row: error for row, error in enumerate(found) if error is not None}, deaths.stat().st_size


@pytest.mark.parametrize("place", PLACES)
def test_a_row_that_kills_its_worker_twice_while_it_is_alone_in_it_fails(tmp_path: Path, place: int) -> None:
    found, deaths = errors(tmp_path, 100, place)
    assert found == {place: "worker_died: mapping this row kills the worker process"}
    assert deaths == 3, "one with its batch, two alone"


@pytest.mark.parametrize("place", PLACES)
def test_a_row_that_was_alone_in_one_death_is_mapped_again(tmp_path: Path, place: int) -> None:
    assert errors(tmp_path, 2, place) == ({}, 2)
