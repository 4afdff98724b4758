"""How long the tests of faults take: seconds in `make test`, minutes in `make faults`."""

import os

import pytest


@pytest.fixture(scope="session")
def long_form() -> bool:
    """Whether `make faults` runs the tests."""
    return os.environ.get("RUN_BATCH_FAULTS") == "long"
