"""What the tests of faults share: how long they take (seconds in `make test`, minutes in `make faults`), and mounts."""

import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path

import disks
import pytest
import standing

import jobs

# Processes of these tests are forked from one that has imported everything; it finds modules by the environment alone.
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(Path(__file__).parent), str(jobs.ROOT / "tests"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
)
multiprocessing.get_context("forkserver").set_forkserver_preload(["stand_ins", "rowless"])


@pytest.fixture(scope="session", autouse=True)
def _hidden_mounts() -> None:
    disks.hide_mounts()


@pytest.fixture(autouse=True)
def _no_run_outlives_its_test() -> Iterator[None]:
    """A test that fails may leave a run: pytest would wait for its end."""
    yield
    for process in multiprocessing.active_children():
        standing.kill_group(process)


@pytest.fixture(scope="session")
def long_form(request: pytest.FixtureRequest) -> bool:
    """Whether `make faults` runs the tests: it selects those marked as long, too."""
    return request.config.getoption("-m") != "not long"
