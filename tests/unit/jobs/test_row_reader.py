"""Rows to map: whole shards, and what a resumed run has left of them, by one cursor that goes on."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from job_configs import job

from run_batch.jobs.job.open_input import open_source
from run_batch.jobs.job.row_reader import RowReader


@pytest.mark.parametrize("id_column", [None, "uid"])
def test_wanted_rows_come_in_order_with_their_ids_whatever_lies_between(tmp_path: Path, id_column: str | None) -> None:
    rows = {"uid": [f"u{i}" for i in range(60)], "image": [b"x"] * 60, "prompt": [str(i) for i in range(60)]}
    pq.write_table(pa.table(rows), tmp_path / "rows.parquet", row_group_size=40)
    config = job(tmp_path, input={"id_column": id_column})
    reader = RowReader(config, open_source(config), 4)
    for wanted in (range(6), [7, 8, 12, 39, 40, 41, 59], [], range(20, 22)):
        batches = list(reader.read(wanted))
        assert [text for batch in batches for text in batch.records["prompt"].to_pylist()] == [str(i) for i in wanted]
        for batch in batches:
            names = None if id_column else [f"rows.parquet:{row}" for row in range(batch.start, batch.stop)]
            assert batch.row_ids == names and batch.records.num_rows <= 4
    reader.close()
