"""How many engines a process runs, and which of the GPUs that it sees each of them takes."""

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from slurm_environments import BATCH_SCRIPT, step

from jobs import ROOT
from run_batch.jobs.job.config import JobConfig, parse_config
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.machine.gpus import engine_places, first_place

CUDA, HIP, ROCR = "CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"


def config(**engine: Any) -> JobConfig:
    tables = {"input": {"path": "a"}, "model": {"path": "m"}, "output": {"path": "o"}, "engine": engine}
    return parse_config(tables, ROOT)


@pytest.fixture(autouse=True)
def _a_machine_without_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    monkeypatch.setattr("run_batch.jobs.machine.gpus.is_cpu_build", lambda: False)


def install(monkeypatch: pytest.MonkeyPatch, cuda: int = 0, hip: int = 0) -> None:
    """Let the machine have some GPUs."""

    def installed() -> Iterator[tuple[str, int]]:
        yield CUDA, cuda
        yield HIP, hip

    monkeypatch.setattr("run_batch.jobs.machine.gpus._installed_gpus", installed)


def devices(environ: Mapping[str, str], by_hand: int | None = None, **engine: Any) -> list[str | None]:
    """Of each engine, the value of CUDA_VISIBLE_DEVICES, or None where it stays as it is."""
    return [place.get(CUDA) for place in engine_places(config(**engine), environ, by_hand)]


@pytest.mark.parametrize(
    ("visible", "engine", "expected"),
    [
        ("0,1,2,3", {}, ["0", "1", "2", "3"]),
        ("GPU-a, MIG-b", {}, ["GPU-a", "MIG-b"]),
        ("4,5,6,7,8", {"tensor_parallel_size": 2}, ["4,5", "6,7"]),
        ("0,1,2,3", {"tensor_parallel_size": 2, "pipeline_parallel_size": 2}, [None]),
        ("0,1,2,3", {"data_parallel_size": 2}, ["0", "1"]),
        ("0,1,2,3", {"data_parallel_size": 1}, [None]),
        ("0,1,-1,3", {}, ["0", "1"]),  # as CUDA reads it
        ("7", {}, [None]),
        ("0", {"tensor_parallel_size": 2}, [None]),  # vLLM tells what it lacks
        ("", {}, [None]),
        ("", {"data_parallel_size": 2}, [None, None]),
        ("NoDevFiles", {}, [None]),
    ],
)
def test_the_visible_gpus_are_divided_among_as_many_engines_as_they_allow(
    visible: str, engine: Mapping[str, int], expected: list[str | None]
) -> None:
    assert devices({CUDA: visible}, **engine) == expected


def test_gpus_that_the_machine_has_are_found_without_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, cuda=2)
    assert engine_places(config(), {}) == [{CUDA: "0"}, {CUDA: "1"}]
    install(monkeypatch, hip=2)
    assert engine_places(config(), {}) == [{HIP: "0"}, {HIP: "1"}]
    monkeypatch.setattr("run_batch.jobs.machine.gpus.is_cpu_build", lambda: True)
    assert engine_places(config(), {}) == [{}]


def test_the_variables_of_amd_are_divided_on_the_level_that_they_number() -> None:
    assert engine_places(config(), {ROCR: "4,5"}) == [{ROCR: "4"}, {ROCR: "5"}]
    # These number what ROCR_VISIBLE_DEVICES leaves visible, which stays as it is.
    assert engine_places(config(), {ROCR: "4,5", HIP: "1,0"}) == [{HIP: "1"}, {HIP: "0"}]
    assert engine_places(config(), {CUDA: "2,3", HIP: "2,3"}) == [{CUDA: n, HIP: n} for n in "23"]


@pytest.mark.parametrize("engine", [{"data_parallel_size": 5}, {"data_parallel_size": 2, "tensor_parallel_size": 4}])
def test_more_engines_than_gpus_are_refused_with_the_figures(engine: Mapping[str, int]) -> None:
    with pytest.raises(JobError, match=r"engine.data_parallel_size = \d .* need \d GPUs, and this process sees 4"):
        devices({CUDA: "0,1,2,3"}, **engine)


@pytest.mark.parametrize(
    ("by_hand", "engine", "expected"),
    [
        (0, {}, ["0"]),
        (3, {}, ["3"]),
        (5, {}, ["1"]),
        (1, {"tensor_parallel_size": 2}, ["2,3"]),
        (2, {"tensor_parallel_size": 2}, ["0,1"]),
        (1, {"data_parallel_size": 2}, ["2", "3"]),
        (7, {"data_parallel_size": 4}, ["0", "1", "2", "3"]),
        (0, {"tensor_parallel_size": 8}, [None]),
    ],
)
def test_a_share_by_hand_is_one_engine_on_the_gpu_of_its_index(
    by_hand: int, engine: Mapping[str, int], expected: list[str | None]
) -> None:
    assert devices({CUDA: "0,1,2,3"}, by_hand, **engine) == expected
    assert devices({}, by_hand) == [None]


@pytest.mark.parametrize(
    ("environ", "needed", "expected"),
    [
        ({**step(1, "4", local=1)}, 1, [None]),  # no GPUs
        ({**step(1, "4", local=1), CUDA: "NoDevFiles"}, 1, [None]),
        ({**BATCH_SCRIPT, CUDA: "0,1,2,3"}, 4, [None]),
        ({**BATCH_SCRIPT, CUDA: "0,1,2,3", "SLURM_GPUS_ON_NODE": "4"}, 2, ["0,1", "2,3"]),
        ({**step(2, "4", local=2), CUDA: "0,1,2,3"}, 1, ["2"]),
        ({**step(3, "2(x2)", node=1, local=1), CUDA: "4,5,6,7"}, 2, ["6,7"]),
        ({**step(3, "2(x2)", node=1, local=1), CUDA: "4,5,6,7"}, 1, ["6", "7"]),
        ({**step(2, "3,1", local=2), CUDA: "GPU-a,GPU-b,GPU-c"}, 1, ["GPU-c"]),
        ({**step(2, "4", local=2), CUDA: "0", "SLURM_GPUS_ON_NODE": "4"}, 1, [None]),  # bound by Slurm
        ({**step(2, "4", local=2), CUDA: "0,1", "SLURM_GPUS_ON_NODE": "8"}, 2, [None]),
        ({**step(2, "4", local=2), CUDA: "0,1", "SLURM_GPUS_ON_NODE": "8"}, 1, ["0", "1"]),
        ({**step(1, "2", local=1), ROCR: "0,1,2,3"}, 2, [None]),
    ],
)
def test_a_task_takes_its_own_gpus_and_no_others(
    environ: Mapping[str, str], needed: int, expected: list[str | None]
) -> None:
    assert devices(environ, tensor_parallel_size=needed) == expected
    first = first_place(config(tensor_parallel_size=needed), environ)
    if expected[0] is not None and len(expected) == 1:
        assert first == {CUDA: expected[0]}


def test_gpus_that_slurm_does_not_manage_are_shared_out_too(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, cuda=4)
    assert devices(step(1, "2", local=1), tensor_parallel_size=2) == ["2,3"]
    install(monkeypatch, cuda=8)
    assert devices(step(7, "4(x2)", node=1, local=3), tensor_parallel_size=2) == ["6,7"]


@pytest.mark.parametrize(
    ("environ", "needed", "said"),
    [
        ({**BATCH_SCRIPT, CUDA: "0,1"}, 4, "= 4, and this task sees 2 GPUs"),
        ({**step(0, "4"), CUDA: "0,1"}, 1, "of 4 tasks on this node each sees 2 GPUs"),
        ({**step(0, "4"), CUDA: "0", "SLURM_GPUS_ON_NODE": "1"}, 1, "each sees 1 GPUs"),
    ],
)
def test_gpus_that_cannot_be_shared_out_are_refused(environ: Mapping[str, str], needed: int, said: str) -> None:
    with pytest.raises(JobError, match=said) as error:
        devices(environ, tensor_parallel_size=needed)
    assert f"--gpus-per-task={needed}" in str(error.value)
