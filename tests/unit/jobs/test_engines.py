"""What the engine processes of one run get, each of them, and how the run's processes are told from shares."""

from pathlib import Path

import pytest

from run_batch.io.coordination.lease import Lease
from run_batch.io.outputs.shards import ShardStore
from run_batch.jobs.engines.engine_process import EngineSlot
from run_batch.jobs.engines.fleet import make_slots
from run_batch.jobs.job.plan import Plan
from run_batch.jobs.job.rows import Generation
from run_batch.jobs.job.shares import WHOLE_JOB, Share, begun_shares, engines_lease_name, has_engines
from run_batch.jobs.results.shard_commits import NewCommits, count_results, record_commit
from run_batch.jobs.watch.status import read_processes


def slot(index: int) -> EngineSlot:
    return EngineSlot(index, {"CUDA_VISIBLE_DEVICES": "4,5"}, {0, 1}, 2)


def test_an_engine_has_its_gpus_its_cache_and_its_ports() -> None:
    found = slot(3).environment({"CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5", "VLLM_PORT": "7000", "HOME": "/home/a"})
    assert found["CUDA_VISIBLE_DEVICES"] == "4,5" and found["VLLM_PORT"] == "7300" and found["HOME"] == "/home/a"
    assert found["VLLM_CACHE_ROOT"] == str(Path.home() / ".cache" / "vllm" / "engine-3")
    assert slot(0).environment({"XDG_CACHE_HOME": "/c"})["VLLM_CACHE_ROOT"] == "/c/vllm/engine-0"
    assert slot(1).environment({"VLLM_CACHE_ROOT": "/tmp/task-7"})["VLLM_CACHE_ROOT"] == "/tmp/task-7/engine-1"
    assert "VLLM_PORT" not in slot(1).environment({})


def test_an_engine_is_named_with_its_gpus() -> None:
    one, two, cpu = make_slots([{"HIP_VISIBLE_DEVICES": "7"}, {"CUDA_VISIBLE_DEVICES": "0,1"}, {}], [{0}] * 3, [1] * 3)
    assert [one.name, two.name, cpu.name] == ["engine 0 (GPU 7)", "engine 1 (GPUs 0,1)", "engine 2"]


@pytest.mark.parametrize("share", [WHOLE_JOB, Share(3, 8)])
def test_who_starts_engines_is_no_share_that_others_take_from_but_keeps_the_folder(
    tmp_path: Path, share: Share
) -> None:
    assert not has_engines(tmp_path)
    lease = Lease(tmp_path, engines_lease_name(share))
    lease.take()
    assert has_engines(tmp_path)
    assert begun_shares(tmp_path) == [WHOLE_JOB] and read_processes(tmp_path) == {}
    with pytest.raises(Exception, match="it is running"):
        Lease(tmp_path, engines_lease_name(share)).take()
    lease.release()
    assert not has_engines(tmp_path)


def test_commits_are_read_as_they_are_appended(tmp_path: Path) -> None:
    store = ShardStore(tmp_path)
    store.create()
    plan = Plan(20, 10)

    def commit(shard: int) -> None:
        results = [Generation(row, ("a",), "stop", 1, 1) for row in plan.rows(shard)]
        record_commit(store, count_results(shard, 0, results))

    commit(0)
    new = NewCommits(store.own_folder)
    assert new.take() == []
    commit(1)
    with open(store.own_folder / "commits.jsonl", "ab") as file:
        file.write(b'{"shard": 2, "att')  # another one is being written
    assert [found.shard for found in new.take()] == [1]
    with open(store.own_folder / "commits.jsonl", "ab") as file:
        file.write(b'empt": 0, "rows": 10, "prompt_tokens": 1, "generated_tokens": 1}\n')
    assert [found.shard for found in new.take()] == [2] and new.take() == []
    assert NewCommits(tmp_path / "of a share that was never begun").take() == []
