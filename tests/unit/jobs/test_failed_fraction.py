"""How many of some rows may fail: as many as the fraction says in decimals, not as its binary form rounds it."""

import pytest

from run_batch.jobs.job.errors import are_too_many


@pytest.mark.parametrize("rows", [1, 10, 100, 1000, 40_000_000])
def test_exactly_the_fraction_is_not_too_many_and_one_more_is(rows: int) -> None:
    for percent in range(101):
        allowed = percent * rows // 100
        assert not are_too_many(allowed, rows, percent / 100)
        assert are_too_many(allowed + 1, rows, percent / 100)


def test_none_of_no_rows_is_not_too_many() -> None:
    assert not are_too_many(0, 0, 0.0) and are_too_many(1, 1, 0.0)
