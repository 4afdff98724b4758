"""The memory that rows take with real vLLM, whose engine is a process of its own: of all processes together."""

import time
from pathlib import Path

import pytest
from process_memory import memory_of
from test_vllm import OWN_PROCESS, start

import jobs

pytestmark = pytest.mark.engine

ROW = 24_000_000
ROWS = 60
BUDGET = 400_000_000

# A model whose mapped images are as large as is asked for: the picture, and then zeros.
PLUGIN = """
import torch
from run_batch.model import MULTIMODAL_REGISTRY, map_uint8_pixels
from run_batch.model.families.llava import LlavaForConditionalGeneration

def padded_pixels(context, items):
    found = []
    for pixels in map_uint8_pixels(context, items)["pixel_values"]:
        padded = torch.zeros({nbytes}, dtype=torch.uint8)
        padded[: pixels.numel()] = pixels.flatten()
        found.append(padded)
    return {{"pixel_values": found}}

@MULTIMODAL_REGISTRY.register_image_pixel_input_mapper(padded_pixels)
class PaddedLlava(LlavaForConditionalGeneration):
    def embed_multimodal(self, **kwargs):
        size = self.config.vision_config.image_size
        pixels = [image[: 3 * size * size].view(3, size, size) for image in kwargs["pixel_values"]]
        return super().embed_multimodal(**{{**kwargs, "pixel_values": torch.stack(pixels)}})
"""


def peak(folder: Path, nbytes: int, memory: str) -> int:
    """Run a job to its end; the most memory of all its processes at a time."""
    columns = jobs.rows(ROWS)
    model = {"architecture": "PaddedLlava", "plugins": ["padded"]}
    preprocess = {"workers": 2, "memory": memory}
    job = jobs.write_job(folder, columns, model=model, preprocess=preprocess, engine={"max_num_batched_tokens": 256})
    (folder / "padded.py").write_text(PLUGIN.format(nbytes=nbytes))
    process = start(job, **OWN_PROCESS)
    most = 0
    while process.poll() is None:
        most = max(most, memory_of(process.pid))
        time.sleep(0.02)
    said, _ = process.communicate()
    assert process.returncode == 0, said
    assert jobs.results(job)["error"].null_count == ROWS
    return most


@pytest.mark.long
def test_rows_of_24_mb_stay_in_the_budget_with_vllm_in_a_process_of_its_own(tmp_path: Path) -> None:
    small = peak(tmp_path / "small", 10_000, "400 MB")
    within = peak(tmp_path / "within", ROW, "400 MB") - small
    beyond = peak(tmp_path / "beyond", ROW, "6 GB") - small
    print(f"\nbesides {small / 1e6:.0f} MB: {within / 1e6:.0f} MB within 400 MB, {beyond / 1e6:.0f} MB within 6 GB")
    assert within < 1.25 * BUDGET
    assert beyond > 2 * BUDGET, "the test would not see it"
