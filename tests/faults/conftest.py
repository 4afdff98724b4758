"""What the tests of faults share: how long they take (seconds in `make test`, minutes in `make faults`), and mounts."""

import disks
import pytest


@pytest.fixture(scope="session", autouse=True)
def _hidden_mounts() -> None:
    disks.hide_mounts()


@pytest.fixture(scope="session")
def long_form(request: pytest.FixtureRequest) -> bool:
    """Whether `make faults` runs the tests: it selects those marked as long, too."""
    return request.config.getoption("-m") != "not long"
