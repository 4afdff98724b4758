"""Metrics: one line for each second of a run, and the stage that is its bottleneck."""

import json
import time
from pathlib import Path

from run_batch.jobs.job.pool_counts import PoolCounts
from run_batch.jobs.watch.metrics import Metrics


def interval(file: Path, pool: PoolCounts, idle: bool = False, waiting: int = 0, shards_queued: int = 0) -> dict:
    metrics = Metrics(file)
    time.sleep(0.05)
    metrics.lap("idle" if idle else "step")
    metrics.add(20, 5)
    metrics.write(pool, waiting, 4, 0.0, shards_queued)
    record = json.loads(file.read_text().splitlines()[-1])
    assert record["bottleneck"] == metrics.bottleneck
    return record


def test_each_interval_is_a_line_with_what_happened_in_it(tmp_path: Path) -> None:
    pool = PoolCounts(
        rows_mapped=30, mapping_seconds=0.04, input_seconds=0.01, rows_waiting=7, bytes_waiting=99, workers=2
    )
    record = interval(tmp_path / "metrics.jsonl", pool, waiting=3)
    assert (record["rows_mapped"], record["rows_finished"]) == (30, 1)
    assert (record["prompt_tokens"], record["generated_tokens"]) == (20, 5)
    assert (record["rows_queued"], record["rows_waiting"], record["rows_running"]) == (7, 3, 4)
    assert record["bytes_in_flight"] == 99 and record["step_seconds"] >= 0.05
    assert 0 < record["mapping_share"] < 0.5


def test_the_bottleneck_is_the_stage_that_the_others_wait_for(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    waiting = PoolCounts(9, 0.0, 0.0, rows_waiting=9, bytes_waiting=0, workers=1)
    mapping = PoolCounts(9, 9.0, 0.0, rows_waiting=0, bytes_waiting=0, workers=1)
    reading = PoolCounts(9, 0.0, 9.0, rows_waiting=0, bytes_waiting=0, workers=1)
    assert interval(file, waiting)["bottleneck"] == "engine"
    assert interval(file, mapping, idle=True)["bottleneck"] == "mapping"
    assert interval(file, reading, idle=True)["bottleneck"] == "input"
    assert interval(file, waiting, shards_queued=5)["bottleneck"] == "output"
    one_of_two = PoolCounts(9, 0.03, 0.0, rows_waiting=0, bytes_waiting=0, workers=2)
    assert interval(file, one_of_two, idle=True)["bottleneck"] == "mapping", "the last rows are with one worker"
    assert len(file.read_text().splitlines()) == 5


def test_a_line_counts_its_own_interval_alone(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "metrics.jsonl")
    for rows_mapped, seconds in ((30, 1.0), (70, 3.0)):
        time.sleep(0.05)
        metrics.lap("step")
        metrics.add(20, 5)
        pool = PoolCounts(rows_mapped, seconds, seconds, rows_waiting=1, bytes_waiting=9, workers=2)
        metrics.write(pool, 0, 4, seconds, 0)
    first, second = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert (first["rows_mapped"], second["rows_mapped"]) == (30, 40)
    for name, value in (("rows_finished", 1), ("prompt_tokens", 20), ("generated_tokens", 5)):
        assert first[name] == second[name] == value
    assert (first["input_seconds"], second["input_seconds"]) == (1.0, 2.0)
    assert (first["output_seconds"], second["output_seconds"]) == (1.0, 2.0)
    assert second["step_seconds"] < first["step_seconds"] + 0.04, "the seconds of the first interval count again"


def test_the_last_part_of_a_second_is_told_with_what_held_the_run_up_before(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path / "metrics.jsonl")
    for is_last in (False, True):
        metrics.add(20, 5)
        pool = PoolCounts(9, 0.0, 0.0, rows_waiting=0 if is_last else 9, bytes_waiting=0, workers=1)
        metrics.write(pool, 0, 0, 0.0, 0, is_last=is_last)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["bottleneck"] for line in lines] == ["engine", "engine"]
    assert [line["rows_finished"] for line in lines] == [1, 1] and all(line["seconds"] > 0 for line in lines)
