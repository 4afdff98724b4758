"""What the tests of faults share: how long they take (seconds in `make test`, minutes in `make faults`), and mounts."""

from collections.abc import Iterator

import disks
import pytest
import standing

# While tests are collected: the process that jobs are forked from may start with any test, and has to see the mounts.
disks.hide_mounts()


@pytest.fixture(autouse=True)
def _no_process_left() -> Iterator[None]:
    yield
    standing.end_all()


@pytest.fixture(scope="session")
def long_form(request: pytest.FixtureRequest) -> bool:
    """Whether `make faults` runs the tests: it selects those marked as long, too."""
    return request.config.getoption("-m") != "not long"
