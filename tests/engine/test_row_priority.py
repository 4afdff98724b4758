"""Rows that wait in vLLM's engine run in the order of their priorities."""

from pathlib import Path

import engines
import pytest
from vllm.inputs.engine import tokens_input

import jobs
from run_batch.jobs.job.config import parse_config
from run_batch.jobs.job.rows import MappedRow

pytestmark = pytest.mark.engine


def test_of_the_rows_that_wait_those_with_lower_numbers_run_first(tmp_path: Path) -> None:
    engine = {**engines.ENGINE, "max_num_seqs": 1}
    tables = {"path": "rows.parquet", "priority_column": "urgent"}
    model = {"path": jobs.TABLES["model"]["path"]}
    config = parse_config({"input": tables, "model": model, "engine": engine, "output": {"path": "out"}}, tmp_path)
    with engines.running_engine(config.model_settings, {"max_tokens": 2, "ignore_eos": True}) as one:
        for row, priority in enumerate((5, 0, 9, -3, 0)):
            assert one.add(MappedRow(row, tokens_input([4, 5, 6]), {}, priority=priority)) is None
        ended: list[int] = []
        while one.unfinished:
            ended += [result.row for result in one.step()]
    assert ended == [3, 1, 4, 0, 2]
