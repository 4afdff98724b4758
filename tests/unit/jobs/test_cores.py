"""How many cores a process may use."""

import os
from pathlib import Path

import pytest
from slurm_environments import step

from run_batch.jobs.machine.cores import cgroup_quotas, divide, divide_cores, usable_cores


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


def test_quotas_of_a_cgroup_and_of_its_parents_count(tmp_path: Path) -> None:
    mount = tmp_path / "cgroup"
    step = mount / "slice" / "job" / "step"
    step.mkdir(parents=True)
    for folder, limit in ((step, "max"), (step.parent, "250000"), (mount, "50000"), (tmp_path, "100000")):
        (folder / "cpu.max").write_text(f"{limit} 100000\n")
    assert cgroup_quotas("0::/slice/job/step\n", mount) == [3, 1]
    assert cgroup_quotas("0::/path/of/the/host\n", mount) == [1]


def test_quotas_of_cgroups_of_version_1_count(tmp_path: Path) -> None:
    # As Slurm nests them on a node whose system mounts cpu and cpuacct together.
    step = tmp_path / "cpu,cpuacct" / "slurm" / "job_7" / "step_0"
    step.mkdir(parents=True)
    (tmp_path / "cpu").symlink_to("cpu,cpuacct")
    (tmp_path / "memory" / "slurm").mkdir(parents=True)
    quotas = {step: -1, step.parent: 150000, step.parents[1]: 400000, tmp_path / "memory" / "slurm": 100000}
    for folder, quota in quotas.items():
        (folder / "cpu.cfs_quota_us").write_text(f"{quota}\n")
        (folder / "cpu.cfs_period_us").write_text("100000\n")
    own = "5:memory:/slurm\n4:cpuacct,cpu:/slurm/job_7/step_0\n1:name=systemd:/slurm\n0::/\n"
    assert cgroup_quotas(own, tmp_path) == [2, 4]


def test_tasks_that_slurm_does_not_bind_share_the_cores_of_their_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))
    monkeypatch.setattr("run_batch.jobs.machine.cores.cgroup_quotas", lambda own, mount: [])
    for name, value in {**step(2, "4", local=2), "SLURM_CPUS_ON_NODE": "32"}.items():
        monkeypatch.setenv(name, value)
    assert usable_cores() == 8
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "3")
    assert usable_cores() == 3


def test_cores_are_divided_among_engines_without_splitting_a_core_or_a_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    # Two sockets of two cores with two hardware threads each, numbered as Linux does: threads come last.
    monkeypatch.setattr("run_batch.jobs.machine.cores._position", lambda core: (core % 4 // 2, core % 2, core))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    assert divide_cores(2) == [{0, 1, 4, 5}, {2, 3, 6, 7}]
    assert divide_cores(4) == [{0, 4}, {1, 5}, {2, 6}, {3, 7}]
    assert [len(cores) for cores in divide_cores(3)] == [2, 3, 3]
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {2, 3})
    assert divide_cores(4) == [{2}, {3}, {2}, {3}]


def test_a_number_is_divided_into_parts_of_at_least_one() -> None:
    assert divide(16, 8) == [2] * 8 and divide(7, 2) == [3, 4] and divide(2, 4) == [1, 1, 1, 1]
