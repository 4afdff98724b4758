"""How many cores a process may use."""

import os
from pathlib import Path

import pytest
from slurm_environments import step

from run_batch.jobs.machine.cores import cgroup_quotas, usable_cores


def test_the_smallest_limit_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    everything = usable_cores()
    assert 1 <= everything <= 64
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "1")
    assert usable_cores() == 1
    monkeypatch.delenv("SLURM_CPUS_PER_TASK")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3})
    assert usable_cores() == 1


def test_quotas_of_all_cgroups_around_a_process_are_seen(tmp_path: Path) -> None:
    inner = tmp_path / "slice" / "job"
    inner.mkdir(parents=True)
    (inner / "cpu.max").write_text("max 100000\n")
    (tmp_path / "slice" / "cpu.max").write_text("250000 100000\n")
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert cgroup_quotas(inner) == [3, 1]


def test_tasks_that_slurm_does_not_bind_share_the_cores_of_their_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    monkeypatch.setattr("run_batch.jobs.machine.cores.cgroup_quotas", lambda folder: [])
    for name, value in {**step(2, "4", local=2), "SLURM_CPUS_ON_NODE": "32"}.items():
        monkeypatch.setenv(name, value)
    assert usable_cores() == 8
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "3")
    assert usable_cores() == 3
