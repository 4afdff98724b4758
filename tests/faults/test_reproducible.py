"""A row's text depends on the row alone: not on shards, workers, interruptions, seats, or the rows beside it."""

import os
import signal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from test_vllm import finish, start, wait_for_rows

import jobs

pytestmark = pytest.mark.engine

COUNT = 240
SAMPLINGS = {
    "temperature 0": {"temperature": 0.0, "max_tokens": 8},
    "a seed": {"temperature": 1.0, "seed": 7, "max_tokens": 8},
}


def texts(table: pa.Table) -> dict[str, str]:
    return dict(zip(table["row_id"].to_pylist(), table["text"].to_pylist(), strict=True))


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_rows_text_depends_on_the_row_alone(tmp_path: Path, sampling: str) -> None:
    tables: dict[str, Any] = {"sampling": SAMPLINGS[sampling]}
    columns = jobs.rows(COUNT)
    whole = texts(jobs.succeed(jobs.write_job(tmp_path / "whole", columns, **tables)))
    assert len(set(whole.values())) >= 8, "the texts hardly depend on the rows"

    # Every third row, in reverse order, in small shards, few at once, mapped by two workers, and interrupted.
    others = {name: values[::-3] for name, values in columns.items()}
    job = jobs.write_job(
        tmp_path / "others",
        others,
        output={"rows_per_shard": 7},
        engine={"max_num_seqs": 5},
        preprocess={"workers": 2},
        **tables,
    )
    process = start(job)
    wait_for_rows(job, 25, process)
    os.kill(process.pid, signal.SIGTERM)
    assert finish(process)[0] == 75
    table = jobs.succeed(job)
    assert texts(table) == {row: whole[row] for row in others["uid"]}
