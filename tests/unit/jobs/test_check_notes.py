"""What `check` notes of a job that can run: rows without an image, texts that the context cannot hold."""

from pathlib import Path

from pictures import encoded, picture

import jobs
from run_batch.jobs.check import check_job
from run_batch.jobs.job.config import load_config
from run_batch.jobs.job.prepare import prepare


def said(folder: Path, images: list[object]) -> str:
    columns = {"uid": [f"u{i}" for i in range(len(images))], "image": images, "prompt": ["what?"] * len(images)}
    return check_job(prepare(load_config(jobs.write_job(folder, columns)), writes=False))[0]


def test_rows_without_an_image_are_counted(tmp_path: Path) -> None:
    image = encoded(picture(0))
    note = "of the first 4 rows have no image in column image: they are asked by their text alone"
    assert f"note: 2 {note}" in said(tmp_path / "nulls", [image, None, image, None])
    assert f"note: 1 {note}" in said(tmp_path / "lists", [[image], [], [image], [image]])
    assert "no image" not in said(tmp_path / "all", [image] * 4)


def test_a_text_that_the_context_cannot_hold_is_said(tmp_path: Path) -> None:
    columns = {"uid": ["a"], "image": [encoded(picture(0))], "prompt": ["what?"]}
    for most, is_said in ((300, True), (256, True), (100, False)):
        job = jobs.write_job(tmp_path / str(most), columns, sampling={"max_tokens": most})
        text = check_job(prepare(load_config(job), writes=False))[0]
        assert (f"note: sampling.max_tokens = {most} is more than the context holds, 256 tokens" in text) == is_said
