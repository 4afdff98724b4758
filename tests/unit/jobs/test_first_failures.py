"""Rows that fail before any is generated: held back, and the job's fault where all of them fail alike."""

import pytest

from run_batch.jobs.job.errors import JobError, RunError
from run_batch.jobs.job.rows import Generation, RowFailure
from run_batch.jobs.runner.first_failures import FirstFailures

TEXT = Generation(99, ("a",), "stop", 1, 1)


def fail(row: int, kind: str = "bad") -> RowFailure:
    return RowFailure(row, kind, f"row {row} is broken")


@pytest.mark.parametrize(("has_texts", "error"), [(False, JobError), (True, RunError)])
def test_where_the_first_rows_all_fail_alike_the_job_is_at_fault_and_none_is_recorded(
    has_texts: bool, error: type[Exception]
) -> None:
    first = FirstFailures(5, has_texts)
    for row in range(4):
        assert first.pass_on(fail(row)) == []
        first.check()
    first.pass_on(fail(4))
    with pytest.raises(error, match=r"all of the first 5 rows fail alike.*Row 0: bad: row 0 is broken"):
        first.check()
    assert first.release() == []


def test_failures_of_several_kinds_are_those_of_the_rows() -> None:
    first = FirstFailures(3, False)
    failures = [fail(0), fail(1, "worse"), fail(2), fail(3)]
    assert [first.pass_on(failure) for failure in failures] == [[], [], failures[:3], [failures[3]]]
    first.check()
    assert first.release() == []


def test_from_the_first_text_on_nothing_is_held_back() -> None:
    first = FirstFailures(2, False)
    assert first.pass_on(fail(0)) == []
    assert first.pass_on(TEXT) == [fail(0), TEXT]
    for row in range(1, 9):
        assert first.pass_on(fail(row)) == [fail(row)]
        first.check()
