"""Measures what a row with a video costs a worker: videos that differ, and 8 questions about each video.

The videos are 10 seconds of 640x360 at 25 frames a second, of which the model's own loader samples 20. The checkpoints
are tiny: weights are never read. vLLM's own is its renderer, which `LLM.chat` calls row by row before the engine runs.
All candidates take turns; the CPU time of this process counts, with that of decoders' threads.
"""

import base64
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from itertools import chain, product
from pathlib import Path
from typing import Any

import pyarrow as pa
from equal_images import make_checkpoint
from mapping import become_a_worker
from workloads import FOLDER, ROOT

from run_batch.io.inputs.source import RowBatch
from run_batch.jobs.job.config import parse_config
from run_batch.jobs.mapping.row_mapper import RowMapper
from run_batch.model.checkpoint.settings import ModelSettings, build_engine_args

FAMILIES = ("qwen2_5_vl", "qwen3_vl")
BATCH_ROWS, TURNS, QUESTIONS = 8, 5, 8
ENGINE = {"dtype": "float32", "max_model_len": 8192}


def make_video(seed: int) -> bytes:
    """A video, made once and kept."""
    path = FOLDER / "videos" / f"{seed}.mp4"
    if not path.exists():
        sys.path.insert(0, str(ROOT / "tests"))
        from videos import video

        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(video(seed, frames=250, fps=25.0, size=(640, 360)))
    return path.read_bytes()


def make_batches(questions: int) -> list[pa.Table]:
    """Rows for the warm-up and each turn, with so many questions about each video."""
    rows = [
        {"id": str(row), "video": make_video(row // questions), "prompt": f"Question {row}?"}
        for row in range(BATCH_ROWS * (TURNS + 1))
    ]
    return [pa.Table.from_pylist(rows[start : start + BATCH_ROWS]) for start in range(0, len(rows), BATCH_ROWS)]


def worker(model: Path) -> Callable[[pa.Table], None]:
    """What a worker process does with a batch before it sends it."""
    tables: dict[str, Any] = {
        "input": {"path": "rows", "id_column": "id", "video_column": "video"},
        "prompt": {"chat": True},
        "model": {"path": str(model)},
        "engine": ENGINE,
        "output": {"path": "out"},
    }
    mapper = RowMapper(parse_config(tables, FOLDER), make_batches(1)[0].schema, None)

    def task(batch: pa.Table) -> None:
        groups = mapper.map_groups(RowBatch(0, batch.combine_chunks().to_batches()[0]))
        failed = [row for row in chain.from_iterable(groups) if not hasattr(row, "engine_input")]
        assert not failed, failed

    return task


def by_vllm(model: Path) -> Callable[[pa.Table], None]:
    """What `LLM.chat` does with a batch before its engine runs."""
    from vllm.renderers.params import ChatParams
    from vllm.renderers.registry import renderer_from_config
    from vllm.usage.usage_lib import UsageContext

    arguments = build_engine_args(ModelSettings(str(model), engine=ENGINE))
    renderer = renderer_from_config(arguments.create_engine_config(UsageContext.LLM_CLASS))
    tokens = renderer.default_chat_tok_params.with_kwargs(add_special_tokens=False)
    params = ChatParams(chat_template_kwargs={"add_generation_prompt": True, "tokenize": False})

    def task(batch: pa.Table) -> None:
        for row in batch.to_pylist():
            url = f"data:video/mp4;base64,{base64.b64encode(row['video']).decode()}"
            content = [{"type": "video_url", "video_url": {"url": url}}, {"type": "text", "text": row["prompt"]}]
            renderer.render_chat([[{"role": "user", "content": content}]], params, tokens)

    return task


def measure(family: str) -> dict[str, list[float]]:
    """Rows per second of CPU time in each turn, by candidate."""
    model = make_checkpoint(family)
    once, repeated = make_batches(1), make_batches(QUESTIONS)
    candidates = {
        "vLLM's own": (by_vllm(model), once),
        "videos that differ": (worker(model), once),
        f"vLLM's own, {QUESTIONS} questions": (by_vllm(model), repeated),
        f"{QUESTIONS} questions a video": (worker(model), repeated),
    }
    rates: defaultdict[str, list[float]] = defaultdict(list)
    for turn, name in product(range(TURNS + 1), candidates):
        task, batches = candidates[name]
        began = time.process_time()
        task(batches[turn])
        if turn:  # the first one warms up
            rates[name].append(BATCH_ROWS / (time.process_time() - began))
    return rates


def main() -> None:
    become_a_worker()
    for family in FAMILIES:
        print(f"\n{family}, rows for a second of CPU time: median, least and most of {TURNS} turns")
        for name, rates in measure(family).items():
            print(f"{name:26s} {statistics.median(rates):7.1f} {min(rates):7.1f} {max(rates):7.1f}")


if __name__ == "__main__":
    main()
