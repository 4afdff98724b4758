"""A bug in a plugin's model ends the run with its exception and line, and no row is blamed for it."""

import os
from pathlib import Path

import pytest

import jobs

pytestmark = pytest.mark.engine

PLUGIN = """
import torch
from run_batch.model import MULTIMODAL_REGISTRY, map_uint8_pixels
from run_batch.model.families.llava import LlavaForConditionalGeneration

def mapper(context, images):
    tensors = map_uint8_pixels(context, images)
    return {"pixel_values": [pixels.permute(MAPS) for pixels in tensors["pixel_values"]]}

@MULTIMODAL_REGISTRY.register_image_pixel_input_mapper(mapper)
class BuggyLlava(LlavaForConditionalGeneration):
    def embed_multimodal(self, **kwargs):
        DOES
        return super().embed_multimodal(**kwargs)
"""


def write_job(folder: Path, maps: str = "0, 1, 2", does: str = "pass", plugin: str = PLUGIN) -> Path:
    model = {"architecture": "BuggyLlava", "plugins": ["buggy"]}
    job = jobs.write_job(folder, jobs.rows(80), model=model)
    (folder / "buggy.py").write_text(plugin.replace("MAPS", maps).replace("DOES", does))
    return job


OWN_PROCESS = {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}


@pytest.mark.parametrize("environment", [{}, pytest.param(OWN_PROCESS, marks=pytest.mark.long)], ids=len)
def test_a_bug_in_embed_multimodal_ends_the_run_with_its_line(
    tmp_path: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setitem(os.environ, name, value)
    job = write_job(tmp_path, does="kwargs['pixel_values'].nonsense")
    finished = jobs.run(job, forked=not environment)
    assert finished.returncode == 2, finished.stderr
    last = finished.stderr.splitlines()[-1]
    assert last.startswith("run-batch: the engine dies whatever row it gets, 3 times of the same exception: AttributeE")
    assert f"({tmp_path}/buggy.py, line 13)" in last and "Traceback" not in finished.stderr
    assert finished.stderr.count("the engine died (") == 3
    assert not (tmp_path / "out").exists(), "the corrected plugin is another job"
    write_job(tmp_path)
    jobs.succeed(job, forked=not environment)


def test_a_mapper_that_gives_another_layout_than_the_model_takes_ends_the_run(tmp_path: Path) -> None:
    # Of a class that inherits how it embeds images: the code that fails is run-batch's own.
    inherited = PLUGIN.replace("    def embed", "    def unused")
    job = write_job(tmp_path, maps="1, 2, 0", plugin=inherited)
    finished = jobs.run(job)
    last = finished.stderr.splitlines()[-1]
    assert finished.returncode == 1 and "the engine died" not in finished.stderr
    assert (
        last.startswith("run-batch: RuntimeError: The size of tensor a") and f"({tmp_path}/buggy.py, line 10)" in last
    )
    assert "if not of the plugin" in last
