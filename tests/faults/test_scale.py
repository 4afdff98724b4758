"""A thousand shares: what each of them asks of the file system, how long it plans, and what their deaths cost."""

import json
import random
import time
from collections import Counter
from multiprocessing.process import BaseProcess
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import rowless
import standing
from fork_server import CONTEXT
from rowless import Done
from stand_ins import Speed

from run_batch.io.outputs.shards import ShardStore
from run_batch.jobs.job.config import load_config
from run_batch.jobs.watch.status import read_status

ROWS_PER_SHARD = 1000
AT_ONCE = 4


def make_job(folder: Path, shards: int, files: int) -> Path:
    """A job over a large input of nothing much."""
    (folder / "input").mkdir(parents=True)
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{}")
    rows = shards * ROWS_PER_SHARD // files
    table = pa.table({"prompt": pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int8()), rows), ["p"])})
    for index in range(files):
        pq.write_table(table, folder / "input" / f"{index:04d}.parquet")
    path = folder / "job.toml"
    path.write_text(
        '[input]\npath = "input"\nimage_column = ""\n[model]\npath = "model"\n'
        f'[output]\npath = "out"\nrows_per_shard = {ROWS_PER_SHARD}\n'
    )
    return path


def run_all(config: Path, shares: int, deaths: set[int], reports: Path) -> list[int]:
    """Run shares, a few at a time, and those that die again at the end; the shards that each had when it died."""
    dice = random.Random(shares)
    queue = [(index, dice.randrange(3) if index in deaths else None) for index in range(shares)]
    running: dict[int, BaseProcess] = {}
    died = []
    while queue or running:
        while queue and len(running) < AT_ONCE:
            index, dies_after = queue.pop(0)
            arguments = (config, index, shares, dies_after, reports / f"{index}.json")
            running[index] = CONTEXT.Process(target=rowless.run_share, args=arguments)  # type: ignore[assignment]
            running[index].start()
        for index, process in list(running.items()):
            process.join(0.01)
            if process.exitcode is not None:
                del running[index]
                assert process.exitcode in (0, 9), f"share {index} failed"
                if process.exitcode == 9:
                    died.append(index)
                    queue.append((index, None))
    return died


@pytest.mark.parametrize(("shares", "shards"), [(40, 1_000), pytest.param(1_000, 100_000, marks=pytest.mark.long)])
def test_a_share_asks_for_what_its_own_shards_need_and_no_more(tmp_path: Path, shares: int, shards: int) -> None:
    config = make_job(tmp_path / "job", shards, files=max(shards // 1000, 4))
    reports = tmp_path / "reports"
    reports.mkdir()
    deaths = set(random.Random(1).sample(range(shares), max(shares // 100, 3)))
    started = time.monotonic()
    died = run_all(config, shares, deaths, reports)
    seconds = time.monotonic() - started
    done = [Done(**json.loads(path.read_text())) for path in reports.iterdir()]

    store = ShardStore(config.parent / "out")
    assert store.is_complete() and store.committed() == list(range(shards)) and len(died) == len(deaths)
    for shard in random.Random(2).sample(range(shards), min(shards, 500)):
        ids = store.read(shard)["row_id"].to_pylist()
        assert ids == list(range(shard * ROWS_PER_SHARD, (shard + 1) * ROWS_PER_SHARD))
    logs = [path.read_text().splitlines() for path in store.run_folder.glob("shares/*/commits.jsonl")]
    times_committed = Counter(json.loads(line)["shard"] for lines in logs for line in lines)
    assert set(times_committed.values()) == {1} and len(times_committed) == shards

    began = time.monotonic()
    assert read_status(load_config(config)).done == shards * ROWS_PER_SHARD
    status_seconds = time.monotonic() - began
    typical = sorted(done, key=lambda share: share.operations)[len(done) // 2]
    ((path, sharers),) = Counter(path for share in done for path in share.changed).most_common(1)
    print(
        f"\n{shares} shares, {shards} shards, {shards * ROWS_PER_SHARD} rows, {len(died)} deaths: {seconds:.0f} s; "
        f"planning at most {max(share.planning_seconds for share in done):.2f} s and "
        f"{max(share.planning_operations for share in done)} calls; a share of {typical.shards} shards: "
        f"{typical.operations} calls; changed by most shares, {sharers}: {path}; status: {status_seconds:.2f} s"
    )
    assert max(share.planning_seconds for share in done) < 5
    # The one that completes the job reads what all others have noted.
    assert sum(share.operations > 250 + 15 * share.shards for share in done) <= 1
    assert sharers <= 10


@pytest.mark.parametrize(("shares", "shards"), [(8, 80), pytest.param(1_000, 100_000, marks=pytest.mark.long)])
def test_shares_that_die_and_are_run_again_generate_every_row_of_a_large_job(
    tmp_path: Path, shares: int, shards: int
) -> None:
    rows_per_shard, dice = 4, random.Random(3)
    speed = Speed(max_num_seqs=64, step_seconds=0.001, tame=True)
    prompts = [f"p{row}" for row in range(shards * rows_per_shard)]
    job = standing.make_job(tmp_path, prompts, speed, output={"rows_per_shard": rows_per_shard})
    queue = [(index, dice.random() < 0.02 or index == 5) for index in range(shares)]
    running: dict[int, tuple[BaseProcess, bool]] = {}
    kills = 0
    while queue or running:
        while queue and len(running) < 2 * AT_ONCE:
            index, dies = queue.pop(0)
            running[index] = job.share(index, shares).start(), dies
        for index, (process, dies) in list(running.items()):
            process.join(0.01)
            if process.exitcode is None and dies and (job.store / f".run_batch/shares/{index}-of-{shares}").exists():
                standing.kill_group(process)
                kills += 1
                queue.append((index, False))
            elif process.exitcode is None:
                continue
            else:
                assert process.exitcode == 0, job.said()[-2000:]
            del running[index]

    assert job.is_complete() and kills > 0
    table = job.table()
    assert table["row_id"].to_pylist() == [f"u{row:06d}" for row in range(len(prompts))]
    assert table["text"].to_pylist() == [f"text of {prompt}" for prompt in prompts]
    times = Counter(job.generated())
    again = sum(times.values()) - len(times)
    print(f"\n{shares} shares, {shards} shards, {kills} kills: {again} of {len(prompts)} rows generated again")
    assert again <= kills * 4 * speed.max_num_seqs
