"""Rows are worked on together, and a bad one fails alone."""

from collections.abc import Iterator, Sequence

import pytest

from run_batch.model import RowError
from run_batch.model.rendering.bad_row_isolation import isolate_bad_rows

calls: list[list[int]] = []


def halves(rows: Sequence[int]) -> Iterator[int]:
    calls.append(list(rows))
    for row in rows:
        if row % 2:
            raise RowError("odd", str(row))
        yield row // 2


@pytest.fixture(autouse=True)
def _no_calls_yet() -> None:
    calls.clear()


def test_good_rows_are_worked_on_in_one_call() -> None:
    assert isolate_bad_rows(halves, range(0, 8, 2)) == [0, 1, 2, 3]
    assert calls == [[0, 2, 4, 6]]


def test_each_bad_row_gives_its_own_error_in_its_place() -> None:
    assert [str(result) for result in isolate_bad_rows(halves, [2, 3, 4, 5])] == ["1", "odd: 3", "2", "odd: 5"]
    assert calls == [[2, 3, 4, 5], [2], [3], [4], [5]]


def test_a_bad_row_that_comes_alone_is_tried_once() -> None:
    assert [str(result) for result in isolate_bad_rows(halves, [7])] == ["odd: 7"]
    assert calls == [[7]]


def test_without_rows_nothing_is_called() -> None:
    assert isolate_bad_rows(halves, []) == [] and calls == []


def test_an_error_that_no_row_is_to_blame_for_is_raised() -> None:
    with pytest.raises(TypeError):
        isolate_bad_rows(halves, ["2"])  # type: ignore[list-item]
