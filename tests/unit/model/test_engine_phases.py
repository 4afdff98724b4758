"""What an engine tells of its start: by the methods of vLLM's Executor, in this process and in others."""

import subprocess
import sys
import time
from typing import Any

import pytest
from vllm.config import CompilationMode, CUDAGraphMode, VllmConfig
from vllm.v1.executor.abstract import Executor

from run_batch.model.engine_phases import (
    Phase,
    begin_phase,
    begun_phases,
    listen_for_phases,
    note_phases,
    phase_seconds,
)


class NothingLoads(Executor):
    """An executor whose workers do nothing."""

    def _init_executor(self) -> None:
        pass

    def collective_rpc(self, *arguments: Any, **named: Any) -> Any:
        return []

    def check_health(self) -> None:
        pass


def start_engine(mode: CompilationMode, graphs: CUDAGraphMode) -> list[str]:
    """Start one as vLLM's EngineCore does; the phases that it has told of."""
    then = time.monotonic()
    listen_for_phases()
    note_phases()
    note_phases()
    config = VllmConfig()
    config.compilation_config.mode, config.compilation_config.cudagraph_mode = mode, graphs
    executor = NothingLoads(config)
    executor.determine_available_memory()
    executor.initialize_from_config([])
    executor.compile_or_warm_up_model()
    return [begun.phase.value for begun in begun_phases(then)]


@pytest.mark.parametrize(
    ("mode", "graphs", "second", "last"),
    [
        (CompilationMode.NONE, CUDAGraphMode.NONE, "measuring memory", "warming up"),
        (CompilationMode.VLLM_COMPILE, CUDAGraphMode.NONE, "compiling the model", "warming up"),
        (CompilationMode.VLLM_COMPILE, CUDAGraphMode.FULL, "compiling the model", "capturing CUDA graphs"),
    ],
)
def test_the_phases_of_a_start_are_told_once_each(
    mode: CompilationMode, graphs: CUDAGraphMode, second: str, last: str
) -> None:
    assert start_engine(mode, graphs) == ["loading the weights", second, "allocating the KV cache", last]


def test_a_process_that_the_run_starts_tells_the_run() -> None:
    then = time.monotonic()
    listen_for_phases()
    begin_phase(Phase.STARTING)
    code = "from run_batch.model.engine_phases import Phase, begin_phase; begin_phase(Phase.COMPILING)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert [begun.phase for begun in begun_phases(then)] == [Phase.STARTING, Phase.COMPILING]
    took = phase_seconds(then)
    assert list(took) == [Phase.STARTING, Phase.COMPILING] and sum(took.values()) <= time.monotonic() - then
    assert begun_phases(time.monotonic()) == []
