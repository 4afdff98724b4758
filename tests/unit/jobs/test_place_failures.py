"""Rows that fail by what the place of a process can cause: held back until it is known if the place is at fault."""

import pytest

from run_batch.jobs.job.rows import RowFailure
from run_batch.jobs.runner.place_failures import PlaceError, PlaceFailures


def fail(row: int, kind: str = "image_not_found") -> RowFailure:
    return RowFailure(row, kind, f"no file {row}.jpg")


def take(place: PlaceFailures, rows: range, failing: dict[int, str]) -> list[int]:
    """Count rows, those of `failing` with a failure of that kind; the rows whose failures were passed on."""
    found = []
    for row in rows:
        found += place.pass_on(fail(row, failing[row]) if row in failing else None)
    return [failure.row for failure in found]


def test_a_failure_is_passed_on_once_as_many_rows_have_come_after_it_as_are_judged_together() -> None:
    place = PlaceFailures(10, 0.1)
    assert take(place, range(13), {3: "image_not_found"}) == []
    assert take(place, range(13, 14), {}) == [3]
    assert place.release() == []


@pytest.mark.parametrize("kind", ["image_decode", "prompt_too_long", "path_not_allowed", "url_not_allowed"])
def test_failures_of_the_rows_themselves_are_passed_on_at_once_and_any_number_of_them(kind: str) -> None:
    place = PlaceFailures(10, 0.1)
    assert take(place, range(30), dict.fromkeys(range(30), kind)) == list(range(30))
    place.check()


@pytest.mark.parametrize(("status", "is_dead"), [(404, True), (410, True), (403, False), (503, False)])
def test_a_link_that_its_server_calls_dead_is_dead_from_everywhere(status: int, is_dead: bool) -> None:
    place = PlaceFailures(10, 0.1)
    failure = RowFailure(0, "url_failed", f"https://a/b.png: HTTP status {status}")
    assert (place.pass_on(failure) == [failure]) is is_dead


@pytest.mark.parametrize(
    ("rows", "most", "allowed"), [(10, 0.1, 1), (100, 0.29, 29), (1000, 0.1, 100), (7, 0.0, 0), (3, 0.99, 2)]
)
def test_exactly_as_many_failures_as_allowed_are_no_fault_of_the_place(rows: int, most: float, allowed: int) -> None:
    place = PlaceFailures(rows, most)
    take(place, range(rows), dict.fromkeys(range(rows - allowed, rows), "url_failed"))
    place.check()
    assert len(place.release()) == allowed
    place = PlaceFailures(rows, most)
    with pytest.raises(PlaceError):
        take(place, range(rows), dict.fromkeys(range(rows - allowed - 1, rows), "url_failed"))


def test_a_place_that_breaks_later_is_found_and_none_of_the_rows_that_it_failed_is_passed_on() -> None:
    place = PlaceFailures(100, 0.1)
    good = {row: "image_unreadable" for row in range(5, 5000, 20)}  # one in twenty
    passed = take(place, range(5000), good)
    assert passed == list(good)[:-5]
    broken = dict.fromkeys(range(5000, 6000), "image_not_found")
    with pytest.raises(PlaceError, match=r"^11 of the last 100 rows .*image_unreadable: 4, image_not_found: 7\)"):
        take(place, range(5000, 6000), broken)


def test_fewer_rows_than_are_judged_together_are_judged_at_the_end() -> None:
    place = PlaceFailures(1000, 0.1)
    place.check()
    assert take(place, range(20), {1: "url_failed", 2: "url_failed"}) == []
    place.check()
    take(place, range(20, 21), {20: "url_failed"})
    assert place.are_too_many
    with pytest.raises(PlaceError) as caught:
        place.check()
    said = str(caught.value)
    assert said.startswith("3 of the first 21 rows failed") and "url_failed: 3" in said
    assert "Row 1: url_failed: no file 1.jpg" in said and "raise errors.max_fraction" in said


def test_rows_that_earlier_runs_have_finished_are_judged_together_with_those_that_are_left() -> None:
    for finished, are_too_many in ((17, True), (18, False), (5000, False)):
        place = PlaceFailures(100, 0.1)
        place.count_finished(finished)
        take(place, range(2), dict.fromkeys(range(2), "image_not_found"))
        assert place.are_too_many == are_too_many
    with pytest.raises(PlaceError, match=r"^11 of the last 100 rows"):
        take(place, range(2, 20), dict.fromkeys(range(2, 20), "image_not_found"))


def test_with_a_fraction_of_1_nothing_is_held_back() -> None:
    place = PlaceFailures(10, 1.0)
    assert take(place, range(30), dict.fromkeys(range(30), "image_not_found")) == list(range(30))
    place.check()
