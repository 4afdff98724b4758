"""Inputs of all formats as jobs see them: checked, planned, grown, and described by `run-batch init`."""

import csv
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.feather as feather
import pytest
from pictures import encoded, picture

from run_batch.jobs.init.init_job import init_job
from run_batch.jobs.job.config import JobConfig, load_config, parse_config
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.prepare import PreparedJob, prepare
from run_batch.jobs.job.row_reader import RowReader


def write_jsonl(folder: Path, first: int) -> None:
    lines = (json.dumps({"id": n, "image": f"{n}.png", "question": f"what is {n}?"}) for n in range(first, first + 3))
    (folder / f"{first:03d}.jsonl").write_text("\n".join(lines))


def write_csv(folder: Path, first: int) -> None:
    with open(folder / f"{first:03d}.csv", "w") as file:
        rows = [(f"{n:03d}", f"{n}.png", f"what is {n}?") for n in range(first, first + 3)]
        csv.writer(file).writerows([("id", "image", "question"), *rows])


def write_arrow(folder: Path, first: int) -> None:
    numbers = range(first, first + 3)
    rows = {
        "id": numbers,
        "image": [encoded(picture(n)) for n in numbers],
        "question": [f"what is {n}?" for n in numbers],
    }
    feather.write_feather(pa.table(rows), folder / f"{first:03d}.feather")


def write_tar(folder: Path, first: int) -> None:
    with tarfile.open(folder / f"{first:03d}.tar", "w") as archive:
        for n in range(first, first + 3):
            for extension, content in (("png", encoded(picture(n))), ("txt", b"what is it?")):
                info = tarfile.TarInfo(f"{n:05d}.{extension}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


def write_images(folder: Path, first: int) -> None:
    for n in range(first, first + 3):
        (folder / f"{n:03d}.png").write_bytes(encoded(picture(n)))


FORMATS: dict[str, Callable[[Path, int], None]] = {
    "jsonl": write_jsonl,
    "csv": write_csv,
    "arrow": write_arrow,
    "tar": write_tar,
    "images": write_images,
}


@pytest.fixture(params=FORMATS)
def write(request: pytest.FixtureRequest) -> Callable[[Path, int], None]:
    return FORMATS[request.param]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "llava"}')
    return tmp_path


def config_of(folder: Path) -> JobConfig:
    image = "png" if any((folder / "in").glob("*.tar")) else "image"
    template = {"prompt": {"template": "<image> what?"}, "output": {"path": "out", "rows_per_shard": 2}}
    return parse_config(
        {"input": {"path": "in", "image_column": image}, "model": {"path": "model"}, **template}, folder
    )


def row_ids(job: PreparedJob) -> list[str]:
    batches = RowReader(job.config, job.source, 2).read(range(job.plan.num_rows))
    return [row_id for batch in batches for row_id in batch.row_ids or ()]


def test_files_that_sort_behind_the_old_ones_are_added_to_a_job(
    folder: Path, write: Callable[[Path, int], None]
) -> None:
    write(folder / "in", 10)
    first = prepare(config_of(folder))
    first.store.create()
    first.write_record()
    assert not prepare(config_of(folder)).is_replanned
    ids = row_ids(first)
    assert len(set(ids)) == 3
    for start, rows in ((20, 6), (30, 9)):
        write(folder / "in", start)
        grown = prepare(config_of(folder))
        assert grown.is_replanned and grown.plan.num_rows == rows and grown.recorded_rows == rows - 3
        grown.write_record()
        assert row_ids(grown)[: len(ids)] == ids
        ids = row_ids(grown)
        assert not prepare(config_of(folder)).is_replanned
    (first.store.folder / "part-000000.parquet").write_bytes(b"kept")  # a job without results gives its folder away
    write(folder / "in", 0)
    with pytest.raises(JobError, match=r"cannot go on with what input\.path holds now"):
        prepare(config_of(folder))


def test_init_writes_a_job_that_can_start(folder: Path, write: Callable[[Path, int], None]) -> None:
    write(folder / "in", 0)
    columns = init_job(str(folder / "in"), str(folder / "model"), None, None, folder / "job.toml")
    assert columns.image in ("image", "png")
    job = prepare(load_config(folder / "job.toml"))
    assert job.plan.num_rows == 3 and job.media_root == folder / "in"
