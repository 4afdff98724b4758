"""What the report reads of a large job."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from run_batch.io.outputs.shards import ShardStore
from run_batch.jobs.job.plan import Plan
from run_batch.jobs.results.shard_commits import Commit
from run_batch.jobs.watch.report_numbers import Numbers
from run_batch.jobs.watch.report_sample import sample_rows


class CountedStore(ShardStore):
    """A store of which shards are made up, and reads counted."""

    reads = 0

    def schema(self, index: int) -> pa.Schema:
        return pa.schema([("row_id", pa.string())])

    def batches(self, index: int, columns: Any = None, batch_rows: int = 1024) -> Any:
        self.reads += 1
        rows = {"row_id": [f"r{index}"] * 10, "text": ["t"] * 10, "finish_reason": ["stop"] * 10}
        numbers = {"prompt_tokens": [1] * 10, "generated_tokens": list(range(10))}
        table = pa.table({**rows, **numbers, "error": pa.array([None] * 9 + ["bad: x"])})
        return iter(table.select([name for name in table.column_names if name in columns]).to_batches())


@pytest.mark.parametrize("shards", [100, 100_000])
def test_what_is_read_does_not_grow_with_the_shards(tmp_path: Path, shards: int) -> None:
    store = CountedStore(tmp_path)
    commits = {shard: Commit(shard, 0, 10, 10, 45, {"bad": 1}) for shard in range(shards)}
    sample = sample_rows(store, Plan(shards * 10, 10), commits, 200, 0, Numbers(slowest=[(1.5, 999)]))
    assert store.reads <= 2 * 24 + 1 and sample.shards == 20
    (slowest,) = [row for row in sample.rows if "slowest" in row.kinds]
    assert (slowest.row, slowest.seconds) == (999, 1.5)
    assert sum("failed" in row.kinds for row in sample.rows) >= 16
