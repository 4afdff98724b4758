"""One Slurm for all tests of this folder. `make slurm-test` runs them; `make test` does not."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster, install_slurm, running_cluster
from submitted import SlurmJob, make_slurm_job


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    install_slurm()
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture
def make_job(tmp_path: Path, cluster: Cluster) -> Iterator[Callable[..., SlurmJob]]:
    """Makes jobs like submitted.make_slurm_job; nothing of them is left on the cluster."""
    made: list[SlurmJob] = []

    def make(rows: int, *arguments: Any, **tables: Any) -> SlurmJob:
        made.append(make_slurm_job(tmp_path / f"job-{len(made)}", cluster, rows, *arguments, **tables))
        return made[-1]

    yield make
    cluster.ask("scancel", "--user", str(os.geteuid()))
    cluster.wait_until_idle()
