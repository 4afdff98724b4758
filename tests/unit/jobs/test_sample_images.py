"""WebDataset samples whose images have one of several extensions: no row is asked without the image that it has."""

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from run_batch.io.inputs import tar_shards
from run_batch.jobs.init.init_job import init_job
from run_batch.jobs.job.carried_columns import carried_columns
from run_batch.jobs.job.columns import check_columns
from run_batch.jobs.job.config import JobConfig, load_config, parse_config
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.open_input import open_source
from run_batch.jobs.job.prepare import prepare

SAMPLES = (("jpg",), ("PNG",), (), ("jpg", "png"), ("png", "mask.png"), ("jpg", "mask.png"))


def write(path: Path, first: int, samples: Sequence[Sequence[str]]) -> None:
    with tarfile.open(path, "w") as archive:
        for number, extensions in enumerate(samples, first):
            for extension in (*extensions, "txt"):
                info = tarfile.TarInfo(f"{number}.{extension}")
                content = f"{number}.{extension.lower()}".encode()
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "0.tar", 0, SAMPLES[:3])
    write(tmp_path / "in" / "1.tar", 3, SAMPLES[3:])
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "llava"}')
    return tmp_path


def job(folder: Path, image: str, columns: Any = ()) -> JobConfig:
    tables: dict[str, Any] = {
        "input": {"path": "in", "image_column": image},
        "prompt": {"template": "<image> {txt}"},
        "model": {"path": "model"},
        "output": {"path": "out", "columns": list(columns)},
    }
    return parse_config(tables, folder)


def test_the_first_of_several_extensions_is_the_image_of_a_sample(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tar_shards, "_BLOCK_BYTES", 1)
    images = {"jpg;png": ["0.jpg", "1.png", None, "3.jpg", "4.png", "5.jpg"]}
    images["png;webp;jpg"] = ["0.jpg", "1.png", None, "3.png", "4.png", "5.jpg"]
    for column, expected in images.items():
        config = job(folder, column)
        source = open_source(config)
        check_columns(config, source)
        for again in (source, open_source(config, source.index)):
            batches = list(again.cursor(["txt", column], 2).read(1, 6))
            rows = [row for batch in batches for row in batch.records.to_pylist()]
            assert [list(row) for row in rows] == [["txt", column]] * 5
            assert [row[column] and row[column].decode() for row in rows] == expected[1:]
            assert [row["txt"] for row in rows] == [f"{n}.txt" for n in range(1, 6)]


@pytest.mark.parametrize(
    ("column", "sample"), [("jpg", "1 of 0.tar"), ("png", "0 of 0.tar"), ("jpg;webp", "1 of 0.tar")]
)
def test_a_column_that_misses_the_image_of_a_sample_is_refused(folder: Path, column: str, sample: str) -> None:
    config = job(folder, column)
    source = open_source(config)
    whole = {"jpg": "jpg;png", "png": "png;jpg", "jpg;webp": "jpg;webp;png"}[column]
    for again in (source, open_source(config, source.index)):
        with pytest.raises(JobError, match=rf'sample {sample} has its image in another file; set it to "{whole}"'):
            check_columns(config, again)
    check_columns(job(folder, "mask.png"), open_source(job(folder, "mask.png")))  # whose stem no other image has


def test_a_sample_whose_image_lies_apart_from_its_text_is_refused(folder: Path) -> None:
    (folder / "in" / "1.tar").unlink()
    for order in ("0.jpg 1.jpg 0.txt 1.txt", "0.txt 1.txt 0.jpg", "0.json 1.jpg 1.txt 0.jpg"):
        with tarfile.open(folder / "in" / "0.tar", "w") as archive:
            for name in order.split():
                archive.addfile(tarfile.TarInfo(name) if "json" not in name else _json(name), io.BytesIO(b"{}"))
        with pytest.raises(JobError, match=r"the files of '[01]' do not lie beside each other; pack them sorted"):
            open_source(job(folder, "jpg"))


def _json(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = 2
    return info


def test_extensions_that_shards_lack_do_not_matter(folder: Path) -> None:
    (folder / "in" / "1.tar").unlink()
    write(folder / "in" / "0.tar", 0, [("jpg",), ()])
    config = job(folder, "jpg;webp")
    source = open_source(config)
    check_columns(config, source)
    (batch,) = source.cursor(["jpg;webp"], 9).read(0, 2)
    assert batch.records.to_pylist() == [{"jpg;webp": b"0.jpg"}, {"jpg;webp": None}]


def test_extensions_that_no_sample_has_are_refused(folder: Path) -> None:
    with pytest.raises(JobError, match=r"names 'webp;gif'; the samples have: __key__, jpg, txt, png, mask.png"):
        open_source(job(folder, "webp;gif"))


def test_all_columns_are_carried_without_the_joined_one_unless_it_is_named(folder: Path) -> None:
    config = job(folder, "jpg;png", ["*"])
    source = open_source(config)
    assert list(carried_columns(config.output, source.schema)) == ["__key__", "jpg", "txt", "png", "mask.png"]
    named = job(folder, "jpg;png", ["jpg;png"])
    check_columns(named, open_source(named))


def test_a_job_that_names_no_image_column_is_told_which(folder: Path) -> None:
    tables = {"input": {"path": "in"}, "model": {"path": "model"}, "output": {"path": "out"}}
    config = parse_config({**tables, "prompt": {"template": "{txt}"}}, folder)
    with pytest.raises(
        JobError, match=r'name the column of images, such as "jpg;png", or set input\.image_column = ""'
    ):
        check_columns(config, open_source(config))


def test_init_names_all_extensions_of_the_images(folder: Path) -> None:
    assert init_job(str(folder / "in"), str(folder / "model"), None, None, folder / "job.toml").image == "jpg;png"
    assert prepare(load_config(folder / "job.toml")).plan.num_rows == 6
