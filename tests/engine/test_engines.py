"""Two engines of vLLM's on one machine as one run."""

import subprocess
import time
from pathlib import Path

import psutil
import pytest

import jobs

pytestmark = pytest.mark.engine

COUNT = 120


def engines(parent: int, count: int) -> list[psutil.Process]:
    """The processes of a run's engines, once there are so many."""
    deadline = time.monotonic() + 60
    while True:
        found = [child for child in psutil.Process(parent).children() if "engine_main" in " ".join(child.cmdline())]
        if len(found) >= count:
            return found
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("killed", [False, pytest.param(True, marks=pytest.mark.long)])
def test_two_engines_give_what_one_gives(tmp_path: Path, killed: bool) -> None:
    rows = jobs.rows(COUNT)
    # Rows whose texts hang on the row alone: seeds of their own.
    tables = {"sampling": {"temperature": 1.0, "seed": 7}, "output": {"rows_per_shard": 10}}
    single = jobs.write_job(tmp_path / "single", rows, **tables)
    alone = jobs.start(single)
    job = jobs.write_job(tmp_path / "two", rows, engine={"data_parallel_size": 2}, **tables)
    command = [str(jobs.COMMAND), "--config", str(job)]
    process = subprocess.Popen(command, start_new_session=True, cwd="/", stderr=subprocess.PIPE)
    found = engines(process.pid, 2)
    caches = {engine.environ()["VLLM_CACHE_ROOT"] for engine in found}
    assert {Path(cache).name for cache in caches} == {"engine-0", "engine-1"}
    if killed:
        jobs.wait_for_shards(job, 1, process)
        found[1].kill()
    said = process.communicate(timeout=200)[1].decode()
    assert process.returncode == 0, said
    assert alone.finish(200).returncode == 0 and jobs.results(job).equals(jobs.results(single))
    assert (tmp_path / "two" / "out" / "_SUCCESS").exists()
    assert ("engine 1 has died: killed by SIGKILL" in said) == killed, said
    assert not any(engine.is_running() for engine in found)
