"""An input file that is empty, cut off, damaged or something else ends a command with exit code 2, by its name."""

import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import jobs
from run_batch.jobs.job.config import load_config
from run_batch.jobs.job.errors import EXIT_BAD_JOB, JobError
from run_batch.jobs.job.prepare import prepare
from run_batch.jobs.job.row_reader import RowReader
from run_batch.jobs.mapping.mapping_faults import mapping_faults

ROWS = pa.table({"uid": [f"u{i:04d}" for i in range(900)], "prompt": [f"question {i * i}" for i in range(900)]})
LINES = b"".join(json.dumps(row).encode() + b"\n" for row in ROWS.to_pylist())


def write_arrow(path: Path) -> None:
    with pa.ipc.new_file(str(path), ROWS.schema) as writer:
        writer.write_table(ROWS, 100)


def write_tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        for row in ROWS.to_pylist():
            for column, text in row.items():
                member = tarfile.TarInfo(f"{row['uid']}.{column}")
                member.size = len(text)
                archive.addfile(member, io.BytesIO(text.encode()))


FORMATS: dict[str, Callable[[Path], object]] = {
    "rows.parquet": lambda path: pq.write_table(ROWS, path, row_group_size=100),
    "rows.jsonl": lambda path: path.write_bytes(LINES),
    "rows.jsonl.gz": lambda path: path.write_bytes(gzip.compress(LINES)),
    "rows.csv.gz": lambda path: path.write_bytes(
        gzip.compress(b"uid,prompt\n" + LINES.replace(b'"', b"").replace(b":", b""))
    ),
    "rows.arrow": write_arrow,
    "rows.tar": write_tar,
}
DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut off": lambda content: content[: len(content) // 2],
    "no front": lambda content: content[9:],
    "a pointer": lambda content: b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
    "a page": lambda content: b"<!DOCTYPE html><html>Not Found</html>",
}


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_the_fault_of_the_job_and_named(tmp_path: Path, name: str, damage: str) -> None:
    FORMATS[name](tmp_path / name)
    (tmp_path / name).write_bytes(DAMAGE[damage]((tmp_path / name).read_bytes()))
    columns = {"image_column": "", "id_column": "uid", "prompt_column": "prompt"}
    config = load_config(jobs.write_job(tmp_path, None, input={"path": name, **columns}))
    with pytest.raises(JobError, match=name) as caught, mapping_faults():
        job = prepare(config)
        for _ in RowReader(config, job.source, 16).read(range(job.plan.num_rows)):
            pass
    assert caught.value.exit_code == EXIT_BAD_JOB
    assert damage != "a pointer" or "git lfs pull" in str(caught.value)


def test_one_empty_file_among_others_is_named(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for index in range(3):
        FORMATS["rows.parquet"](tmp_path / "in" / f"{index}.parquet")
    (tmp_path / "in" / "1.parquet").write_bytes(b"")
    config = load_config(jobs.write_job(tmp_path, None, input={"path": "in", "image_column": "", "id_column": None}))
    with pytest.raises(JobError, match=r"1\.parquet cannot be read as Parquet: .* put a good copy in its place"):
        prepare(config)
