"""Whether the images that the rows of a job name are still the same ones."""

import json
import shutil
from pathlib import Path

import pytest
from growing_jobs import begun, configured, make_inputs, write

from run_batch.jobs.job.config import JobConfig
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.prepare import prepare


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_inputs(tmp_path)


@pytest.fixture
def pictures(folder: Path) -> JobConfig:
    """A job whose rows name image files, of which some are missing."""
    for name in ("a.png", "b.png", "sub/c.png"):
        (folder / "media" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "media" / name).write_text(f"image {name}")
    paths = ["a.png", "b.png", "sub/c.png", "later.png", "../model/config.json", "data:image/png;base64,AAAA"]
    for name in ("b", "d"):
        write(folder / "in" / f"{name}.parquet", 6, image=[{"bytes": None, "path": path} for path in paths])
    table = {"image_column": "image", "media_root": "media"}
    begun(folder, input=table)
    return configured(folder, input=table)


def moved(config: JobConfig, root: Path) -> JobConfig:
    return config.model_copy(update={"input": config.input.model_copy(update={"media_root": str(root)})})


def test_a_folder_of_the_same_images_may_move_and_get_more(folder: Path, pictures: JobConfig) -> None:
    recorded = json.loads((folder / "out" / ".run_batch" / "job.json").read_text())["media"]
    assert list(recorded) == ["a.png", "b.png", "sub/c.png"], "what leads out of the folder is not looked at"
    shutil.move(folder / "media", folder / "moved")
    (folder / "moved" / "later.png").write_text("was missing")
    (folder / "moved" / "a.png").unlink()
    assert prepare(moved(pictures, folder / "moved")).recorded_rows == 12


def test_a_folder_of_other_images_of_the_same_names_is_refused(folder: Path, pictures: JobConfig) -> None:
    shutil.copytree(folder / "media", folder / "other")
    (folder / "other" / "b.png").write_text("Image b.png")
    with pytest.raises(
        JobError, match=r"cannot go on with these images: b\.png in input\.media_root .* Name the folder"
    ):
        prepare(moved(pictures, folder / "other"))


def test_images_that_conversations_name_are_compared_too(folder: Path) -> None:
    message = {"role": "user", "content": [{"type": "image", "image": "a.png"}, {"type": "text", "text": "What?"}]}
    write(folder / "in" / "b.parquet", 1, conversation=[json.dumps([message])])
    (folder / "in" / "d.parquet").unlink()
    (folder / "in" / "a.png").write_text("one")
    tables = {"input": {"prompt_column": "conversation"}, "prompt": {"chat": True}}
    begun(folder, **tables)
    (folder / "in" / "a.png").write_text("two")
    with pytest.raises(JobError, match=r"cannot go on with these images: a\.png"):
        prepare(configured(folder, **tables))
