"""Jobs whose rows are finished by hand: what a run would write to an output folder, without an engine."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from pictures import encoded, picture

from run_batch.io.coordination.claims import Claims
from run_batch.jobs.job.config import parse_config
from run_batch.jobs.job.prepare import PreparedJob, prepare
from run_batch.jobs.job.rows import Generation, RowFailure, RowResult
from run_batch.jobs.results.shard_commits import CommittedShards
from run_batch.jobs.runner.run_outputs import open_output
from run_batch.jobs.runner.share_lease import output_folder, share_lease
from run_batch.jobs.runner.work_planning import missing_work

PICTURES = [{"bytes": encoded(picture(i, (12, 10)), "PNG"), "path": None} for i in range(4)]


def prepared(folder: Path, columns: Any, **more: dict[str, Any]) -> PreparedJob:
    """A job in shards of two rows; its output folder has a name that readers could take for a split."""
    rows = folder / "rows.parquet"
    if isinstance(columns, datasets.Dataset):
        columns.to_parquet(str(rows))
    elif not isinstance(columns, str):
        pq.write_table(pa.table(columns), rows)
    (folder / "model").mkdir(exist_ok=True)
    (folder / "model" / "config.json").write_text("{}")
    tables = {
        "input": {"path": columns if isinstance(columns, str) else str(rows), "image_column": ""},
        "model": {"path": "model"},
        "output": {"path": "test", "rows_per_shard": 2, **more.pop("output", {})},
        **more,
    }
    return prepare(parse_config(tables, folder))


def result(row: int) -> RowResult:
    """A row's result; the second shard has failures alone."""
    return RowFailure(row, "bad", "why") if row in (2, 3) else Generation(row, (f"t{row}",), "stop", 3, 1)


def commit(job: PreparedJob, rows: range, look: Callable[[], None] = lambda: None) -> None:
    """Finish some rows of a job; `look` is called while it runs."""
    committed = CommittedShards(job.store, job.plan, job.shards)
    with output_folder(job.store), share_lease(job.store, job.share) as lease:
        claims = Claims(job.store.run_folder, lease)
        work = missing_work(committed)
        for shard in work.shards:
            assert claims.take(shard)
        finished = open_output(job, work, committed, claims, {"run_batch.model": "m"}, quiet=True)
        for row in rows:
            finished.add(result(row))
        finished._writer.finish()
        look()
        finished.close()


def labelled() -> datasets.Dataset:
    features = datasets.Features(
        {
            "prompt": datasets.Value("string"),
            "image": datasets.Image(),
            "pages": datasets.Sequence(datasets.Image()),
            "label": datasets.ClassLabel(names=["cat", "dog"]),
            "grid": datasets.Array2D((2, 2), "int32"),
        }
    )
    rows = {
        "prompt": ["a", "b", "c", "d"],
        "image": PICTURES,
        "pages": [[PICTURES[1], PICTURES[2]], [], None, [PICTURES[3]]],
        "label": [0, 1, None, 1],
        "grid": [[[1, 2], [3, 4]]] * 4,
    }
    return datasets.Dataset.from_dict(rows, features=features)
