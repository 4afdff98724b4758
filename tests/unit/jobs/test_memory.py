"""How much memory is left for a process, and what preprocess.memory takes."""

from pathlib import Path

import pytest
from slurm_environments import step

from run_batch.jobs.job.config import parse_config
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.machine import memory
from run_batch.jobs.machine.memory import (
    cgroup_memory_left,
    check_row_memory,
    default_row_memory,
    memory_left,
    memory_there,
)

GIB = 1 << 30


def write_v2(folder: Path, limits: dict[str, str], used: int, cached: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, limit in limits.items():
        (folder / f"memory.{name}").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {cached}\nactive_file 7\nfile_dirty 9\n")


def test_limits_of_a_cgroup_and_of_its_parents_count_without_the_page_cache(tmp_path: Path) -> None:
    mount = tmp_path / "cgroup"
    write_v2(mount / "job" / "step", {"max": "max", "high": "max"}, used=GIB)
    write_v2(mount / "job", {"max": str(8 * GIB), "high": "max"}, used=6 * GIB, cached=3 * GIB - 7)
    write_v2(mount, {"max": str(64 * GIB), "high": str(16 * GIB)}, used=15 * GIB)
    assert cgroup_memory_left("0::/job/step\n", mount) == [5 * GIB, GIB + 7]
    assert cgroup_memory_left("0::/path/of/the/host\n", mount) == [GIB + 7]


def test_limits_of_cgroups_of_version_1_count(tmp_path: Path) -> None:
    job = tmp_path / "memory" / "slurm" / "job_7"
    job.mkdir(parents=True)
    for folder, limit, used in ((job, 4 * GIB, 3 * GIB), (job.parent, 1 << 62, 9 * GIB)):
        (folder / "memory.limit_in_bytes").write_text(f"{limit}\n")
        (folder / "memory.usage_in_bytes").write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"cache 1\ntotal_inactive_file {GIB}\ntotal_active_file 0\n")
    own = "5:memory:/slurm/job_7\n4:cpuacct,cpu:/slurm\n0::/\n"
    assert cgroup_memory_left(own, tmp_path) == [2 * GIB, (1 << 62) - 8 * GIB]


def test_slurms_allocation_counts_where_no_cgroup_enforces_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "cgroup_memory_left", lambda cgroups, mount: [])
    monkeypatch.setattr(memory, "_machine_memory_left", lambda meminfo: 64 * GIB)
    assert (memory_left(), default_row_memory()) == (64 * GIB, 16 * GIB)
    assert default_row_memory(processes=4) == 4 * GIB
    monkeypatch.setenv("SLURM_CPUS_ON_NODE", "4")
    monkeypatch.setenv("SLURM_MEM_PER_CPU", "2048")
    assert memory_left() == 8 * GIB
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "4096")
    assert memory_left() == 4 * GIB
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "0")
    monkeypatch.delenv("SLURM_MEM_PER_CPU")
    for name, value in step(2, "4", local=2).items():
        monkeypatch.setenv(name, value)
    assert memory_left() == 16 * GIB, "four tasks on the node"


def configured(value: object) -> int | None:
    tables = {"input": {"path": "x"}, "model": {"path": "m"}, "output": {"path": "o"}}
    return parse_config({**tables, "preprocess": {"memory": value}}, Path("/")).row_memory


def test_preprocess_memory_takes_bytes_as_a_number_or_as_text() -> None:
    assert configured(500_000_000) == configured("500 MB") == configured("500MB") == configured("0.5 GB") == 500_000_000
    assert configured("8 GiB") == configured("8GiB") == configured("8192 MiB") == 8 * GIB
    for value in (0, -1, 12, "100 MB", "8 GB of it", "", "GiB", "1e9", True, 1.5e9, ["8 GiB"]):
        with pytest.raises(JobError, match=r"^preprocess.memory = .*from 256000000 to.*\"16 GiB\""):
            configured(value)


def test_what_a_process_may_have_at_all_is_the_least_of_all_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_v2(tmp_path / "job", {"max": str(8 * GIB), "high": "max"}, used=7 * GIB)
    monkeypatch.setattr(memory, "CGROUPS", tmp_path)
    monkeypatch.setattr(memory, "own_cgroups", lambda: "0::/job\n")
    assert memory_there() == min(8 * GIB, memory._numbers(Path("/proc/meminfo"))["MemTotal:"])
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "2048")
    assert memory_there() == 2 * GIB


def test_memory_that_the_machine_never_has_is_refused_and_what_it_lacks_now_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(memory, "memory_there", lambda: 64 * 10**9)
    monkeypatch.setattr(memory, "memory_left", lambda: 20 * 10**9)
    check_row_memory(None)
    check_row_memory(16 * 10**9, processes=8)
    assert not caplog.records
    check_row_memory(32 * 10**9)
    assert "preprocess.memory: 32 GB is more than the 20 GB that is left here now" in caplog.text
    with pytest.raises(JobError, match="100 GB is more than the 64 GB that this process may have at all"):
        check_row_memory(100 * 10**9)
    with pytest.raises(JobError, match=r"for 8 engines of this machine together, .* set 2.1 GB or more"):
        check_row_memory(10**9, processes=8)
