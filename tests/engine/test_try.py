"""`run-batch try` on the demo's model, through the command line, beside the results of another job."""

import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import jobs
from run_batch.io.coordination.lease import Lease

pytestmark = pytest.mark.engine

PLUGIN = """
import torch
from run_batch.model import MULTIMODAL_REGISTRY, map_uint8_pixels
from run_batch.model.families.llava import LlavaForConditionalGeneration

@MULTIMODAL_REGISTRY.register_image_pixel_input_mapper(map_uint8_pixels)
class DroppingLlava(LlavaForConditionalGeneration):
    def embed_multimodal(self, **kwargs):
        features = super().embed_multimodal(**kwargs)
        is_profiling = not torch.stack(list(kwargs["pixel_values"])).any()
        return features if is_profiling else [image[:-1] for image in features]
"""


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder, with its size and the time of its last change."""
    found = {path: path.stat() for path in [folder, *folder.rglob("*")]}
    return {str(path): (state.st_size, state.st_mtime_ns) for path, state in found.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job whose output folder another job has filled, and in which a run is under way."""
    folder = tmp_path_factory.mktemp("try")
    columns = jobs.rows(40)
    columns["image"][3] = columns["image"][3][:60]
    jobs.write_job(folder, columns, model={"plugins": ["bystander"]}, errors={"max_fraction": 0.2})
    (folder / "bystander.py").write_text("import json\n")
    run_folder = folder / "out" / ".run_batch"
    run_folder.mkdir(parents=True)
    (run_folder / "job.json").write_text('{"identity": {}, "job_hash": "other", "rows": 1, "rows_per_shard": 1}')
    return folder


@pytest.fixture(scope="module")
def tried(folder: Path) -> subprocess.CompletedProcess[str]:
    lease = Lease(folder / "out" / ".run_batch", "all")
    lease.take()
    before = snapshot(folder)
    finished = jobs.run(folder / "job.toml", "--rows", "6", command="try", forked=False)
    lease.release()
    after = snapshot(folder)
    lock = {path for path in before if "lease" in path or path.endswith(".run_batch")}  # the lease is refreshed
    assert {p: s for p, s in after.items() if p not in lock} == {p: s for p, s in before.items() if p not in lock}
    assert set(after) <= set(before), "it has left something"
    return finished


def test_it_shows_prompts_images_tokens_and_the_answers_that_a_run_gives(
    folder: Path, tried: subprocess.CompletedProcess[str]
) -> None:
    assert tried.returncode == 0, tried.stderr
    text = tried.stdout
    assert "  prompt, 46 tokens:\n    | <s>USER: [<image> x 16]\n    | is it even? ASSISTANT:\n" in text
    assert f"  image 1: 21 x 21 PNG, {len(jobs.rows(2)['image'][1]):,} bytes, 16 tokens\n" in text
    run = jobs.run(folder / "job.toml", "--set", "output.path=own", "--set", "input.limit=6")
    assert run.returncode == 0, run.stderr
    results = pq.read_table(folder / "own").to_pylist()
    sections = text.split("\nrow ")
    for row, section in zip(results, sections, strict=True):
        assert section.removeprefix("row ").startswith(f"{row['row_id']} ")
        if row["error"] is None:
            answer = f"answer, {row['generated_tokens']} tokens, ended by {row['finish_reason']}, "
            assert answer in section and f":\n    | {row['text']}\n" in section
        else:
            assert f"  error: {row['error']}" in section and "image_decode: " in row["error"]


def test_it_forecasts_the_job_from_the_rows_that_worked(tried: subprocess.CompletedProcess[str]) -> None:
    assert "forecast for 40 rows, if they are like the 5 that were generated here" in tried.stdout
    assert "5 at once; start-up" in tried.stdout and "the job runs up to 32 at once" in tried.stdout
    for figure in ("time: about ", "tokens: about ", "results: about ", "GPU hours: none"):
        assert figure in tried.stdout


def test_features_that_do_not_fit_the_placeholders_are_the_jobs_fault(tmp_path: Path) -> None:
    model = {"architecture": "DroppingLlava", "plugins": ["dropping"]}
    job = jobs.write_job(tmp_path, jobs.rows(4), model=model)
    (tmp_path / "dropping.py").write_text(PLUGIN)
    finished = jobs.run(job, command="try")
    assert finished.returncode == 2, finished.stderr
    assert "16 placeholder tokens for features, and its embed_multimodal 15 features" in finished.stderr
    assert "Traceback" not in finished.stderr and not (tmp_path / "out").exists()
