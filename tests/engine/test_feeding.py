"""The engine is fed ahead of need: across shard borders, by workers that keep to their cores, each image once."""

import contextlib
import io
import time
from pathlib import Path
from typing import Any

import engines
import psutil
import pytest
from built_in_families import QWEN_IMAGE, save_family
from checkpoints import save_llava
from pictures import encoded, picture

import jobs
from run_batch.jobs.job.config import load_config
from run_batch.jobs.job.prepare import prepare
from run_batch.jobs.job.rows import Generation, MappedRow
from run_batch.jobs.mapping.worker_pool import WorkerPool
from run_batch.jobs.runner import pipeline
from run_batch.jobs.runner.run_job import run_job
from run_batch.model.checkpoint.settings import ModelSettings
from run_batch.model.families.llava import LlavaForConditionalGeneration
from run_batch.model.images.row_image import EncodedImage
from run_batch.model.prompts.tokenizer import Piece
from run_batch.model.rendering.renderer import Prompt, Renderer

pytestmark = pytest.mark.engine

ROWS = 400


class RecordingEngine:
    """Finishes four rows a step, more slowly than rows are mapped on any machine; notes how many it had."""

    max_num_seqs = 16

    def __init__(self) -> None:
        self.pools: list[WorkerPool] = []
        self.rows: list[int] = []
        self.added = 0
        self.rows_at_steps: list[int] = []
        self.threads_of_workers: list[int] = []

    @property
    def unfinished(self) -> int:
        return len(self.rows)

    @property
    def running(self) -> int:
        return min(self.unfinished, self.max_num_seqs)

    def add(self, mapped: MappedRow) -> None:
        self.rows.append(mapped.row)
        self.added += 1

    def step(self) -> list[Generation]:
        if self.added < ROWS:
            self.rows_at_steps.append(self.unfinished)
            self.threads_of_workers = threads_of_workers()
        time.sleep(0.02)
        deadline = time.monotonic() + 10
        while self.added + (waiting := self.pools[0].rows_waiting) < ROWS and waiting < self.max_num_seqs:
            assert time.monotonic() < deadline, "rows are mapped no further"
            time.sleep(0.001)
        done, self.rows = self.rows[:4], self.rows[4:]
        return [Generation(row, ("text",), "stop", 9, 1) for row in done]

    def close(self) -> None:
        return


def threads_of_workers() -> list[int]:
    """Threads of each worker process that this process has started."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if any("run_batch.jobs.mapping.worker_main" in word for word in process.cmdline()):
                found.append(process.num_threads())
    return found


def test_the_engine_has_rows_for_every_seat_until_the_input_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = jobs.write_job(tmp_path, jobs.rows(ROWS), output={"rows_per_shard": 10}, preprocess={"workers": 2})
    engine: Any = RecordingEngine()

    def start_pool(*arguments: Any, **named: Any) -> WorkerPool:
        engine.pools.append(WorkerPool(*arguments, **named))
        return engine.pools[0]

    monkeypatch.setattr(pipeline, "WorkerPool", start_pool)
    assert run_job(prepare(load_config(job)), True, io.StringIO(), lambda config: engine) == 0
    assert len(jobs.shards(job)) == 40
    # The first rows come as they are mapped.
    assert min(engine.rows_at_steps[5:]) >= engine.max_num_seqs
    assert len(engine.threads_of_workers) == 2
    # Python's own, and one that pyarrow's allocator keeps.
    # The one that maps, one of Arrow's, and one that waits for the end of the run.
    assert max(engine.threads_of_workers) <= 3
    lines = (tmp_path / "out" / ".run_batch" / "metrics.jsonl").read_text().splitlines()
    assert lines and all('"bottleneck": "engine"' in line for line in lines)


def test_an_image_of_many_rows_is_encoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_llava(tmp_path)
    settings = ModelSettings(str(tmp_path), engine=engines.ENGINE)
    content = encoded(picture(1))
    images = [EncodedImage(content, b"digest of it")]
    rows = [Prompt([Piece(f"USER: <image> question {i} ASSISTANT:", trusted=True)], images) for i in range(8)]
    encoded_images = []
    original = LlavaForConditionalGeneration.image_features

    def counting(self: Any, pixel_values: Any) -> Any:
        encoded_images.append(len(pixel_values))
        return original(self, pixel_values)

    with engines.running_engine(settings, engines.SAMPLING) as engine:
        monkeypatch.setattr(LlavaForConditionalGeneration, "image_features", counting)
        assert len(engines.generate(engine, Renderer(settings), rows)) == 8
    assert encoded_images == [1]


def test_an_image_of_many_rows_is_encoded_once_by_a_model_that_vllm_ships(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vllm.model_executor.models.qwen2_5_vl import Qwen2_5_VLForConditionalGeneration as Qwen

    save_family(tmp_path, "qwen2_5_vl")
    settings = ModelSettings(str(tmp_path), engine={**engines.ENGINE, "max_model_len": 512})
    files = [encoded(picture(number, (112, 84))) for number in range(2)]
    rows = [
        Prompt(
            [Piece(QWEN_IMAGE, trusted=True), Piece(f"question {i}", trusted=False)], [EncodedImage.of(files[i % 2])]
        )
        for i in range(16)
    ]
    encoded_images, original = [], Qwen.embed_multimodal

    def counting(self: Any, **inputs: Any) -> Any:
        encoded_images.append(len(inputs["image_grid_thw"]))
        return original(self, **inputs)

    with engines.running_engine(settings, engines.SAMPLING) as engine:
        monkeypatch.setattr(Qwen, "embed_multimodal", counting)
        assert len(engines.generate(engine, Renderer(settings), rows)) == 16
    assert sum(encoded_images) == 2
