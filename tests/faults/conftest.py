"""How long the tests of faults take: seconds in `make test`, minutes in `make faults`."""

import pytest


@pytest.fixture(scope="session")
def long_form(request: pytest.FixtureRequest) -> bool:
    """Whether `make faults` runs the tests: it selects those marked as long, too."""
    return request.config.getoption("-m") != "not long"
