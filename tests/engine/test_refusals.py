"""Jobs that cannot start: exit code 2, one message that names what is wrong, no traceback, nothing written."""

import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import save_llava
from safetensors.torch import load_file, save_file

import jobs

pytestmark = pytest.mark.engine

REFUSALS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"output": {"rows_per_shrad": 5}}, "output.rows_per_shard"),
    "missing input": ({"input": {"path": "nothere.parquet"}}, "nothere.parquet: no such file"),
    "missing column": ({"input": {"image_column": "imgae"}}, "did you mean image"),
    "missing model": ({"model": {"path": "/nonexistent/model"}}, "/nonexistent/model: no such folder"),
    "model on no hub": ({"model": {"path": "someorg/somemodel"}}, "model.path someorg/somemodel"),
    "data set on no hub": ({"input": {"path": "someorg/somedata"}}, "input.path someorg/somedata"),
    "folder without model": ({"model": {"path": "."}}, "no config.json"),
    "unknown architecture": ({"model": {"architecture": "NoSuchModelForX"}}, "NoSuchModelForX"),
    "unknown plugin": ({"model": {"plugins": ["no_such_module_x"]}}, "no_such_module_x"),
    "broken plugin": ({"model": {"plugins": ["broken"]}}, "ZeroDivisionError: division by zero"),
    "unknown engine key": ({"engine": {"max_modle_len": 5}}, "did you mean max_model_len"),
    "engine key of wrong type": ({"engine": {"max_num_seqs": "many"}}, "engine.max_num_seqs = 'many'"),
    "engine value": ({"engine": {"max_model_len": 10**9}}, "max_model_len"),
    "decided engine key": ({"engine": {"model": "other"}}, "model.path"),
    "unknown sampling key": ({"sampling": {"temperatur": 1}}, "did you mean temperature"),
    "sampling value": ({"sampling": {"temperature": -1.0}}, "temperature"),
    "adapter": ({"model": {"lora": "adapter"}}, "adapter: no such folder"),
    "vLLM's data parallelism": (
        {"engine": {"data_parallel_backend": "ray"}},
        "engine.data_parallel_size sets",
    ),
    "no engine": ({"engine": {"data_parallel_size": 0}}, "engine.data_parallel_size = 0: expected a whole number"),
    "result without a column": (
        {"sampling": {"prompt_logprobs": 1}},
        'sampling.prompt_logprobs needs output.extra = ["prompt_logprobs"]',
    ),
    "schema in a file": (
        {"sampling": {"structured_outputs": {"json": "schema.json"}}},
        "schema.json cannot be read: No such file",
    ),
    "schema of no type": (
        {"sampling": {"structured_outputs": {"json": {"type": "objekt"}}}},
        "sampling.structured_outputs",
    ),
    "pattern that is none": ({"sampling": {"structured_outputs": {"regex": "((("}}}, "sampling.structured_outputs"),
    "token that does not exist": ({"sampling": {"stop_token_ids": [10**6]}}, "sampling.stop_token_ids"),
    "more logprobs than vLLM gives": ({"sampling": {"logprobs": 10**4}}, "sampling.logprobs"),
    "parser whose tokens are missing": (
        {"engine": {"reasoning_parser": "deepseek_r1"}, "sampling": {"thinking_token_budget": 5}},
        "engine.reasoning_parser = 'deepseek_r1'",
    ),
    "kwargs that nothing reads": (
        {"engine": {"mm_processor_kwargs": {"max_pixel": 1}}},
        "engine.mm_processor_kwargs.max_pixel does nothing",
    ),
    "no placeholder": ({"prompt": {"template": "{prompt}"}}, "<image>"),
    "no chat template": ({"prompt": {"template": None, "chat": True}}, "chat template"),
    "unwritable output": ({"output": {"path": "job.toml/out"}}, "output.path"),
    "dummy data without images": ({"model": {"architecture": "BareLlava", "plugins": ["bare"]}}, "gave 0 images"),
    "mapper that fails": ({"model": {"architecture": "BrokenLlava", "plugins": ["broken_mapper"]}}, "KeyError: 'typo'"),
    "mapper of videos": ({"model": {"plugins": ["video_mapper"]}}, "run-batch maps images only"),
    "mapper of other arguments": ({"model": {"plugins": ["no_context"]}}, "is called with (context, items), but it is"),
    "plugin of another module's name": ({"model": {"plugins": ["colorsys"]}}, "also another module that Python finds"),
    "plugin that exits": ({"model": {"plugins": ["leaving"]}}, "SystemExit: 4"),
    "two models of one name": ({"model": {"plugins": ["short", "short_again"]}}, "both declare a model ShortLlava"),
    "no multi-modal model": ({"model": {"plugins": ["plain"]}}, "does not implement vLLM's SupportsMultiModal"),
    "no media root": ({"input": {"media_root": "nowhere"}}, "input.media_root nowhere"),
}

# In processes of their own: refused before anything is imported, by vLLM, by a plugin, and in a worker.
STARTED = ("unknown key", "engine value", "broken plugin", "mapper that fails")

_IMPORTS = """
from torch import nn
from run_batch.model import INPUT_REGISTRY, MULTIMODAL_REGISTRY, DummyData
from run_batch.model.families.llava import LlavaForConditionalGeneration
"""
_SHORT = """
def short(context, prompts):
    token = context.get_hf_config().image_token_index
    return [prompt.expand(token, [[token] * 3] * len(prompt.items)) for prompt in prompts]

@INPUT_REGISTRY.register_input_processor(short)
class ShortLlava(LlavaForConditionalGeneration):
    pass
"""
_BARE = """
@INPUT_REGISTRY.register_dummy_data(lambda context, seq_len, mm_counts: DummyData())
class BareLlava(LlavaForConditionalGeneration):
    pass
"""
_BROKEN_MAPPER = """
def broken(context, items):
    raise KeyError("typo")

@MULTIMODAL_REGISTRY.register_image_pixel_input_mapper(broken)
class BrokenLlava(LlavaForConditionalGeneration):
    pass
"""
_PLAIN = """
@MULTIMODAL_REGISTRY.register_image_pixel_input_mapper()
class Plain(nn.Module):
    pass
"""
_VIDEOS = """
@MULTIMODAL_REGISTRY.register_input_mapper("video", lambda context, items: {})
class VideoLlava(LlavaForConditionalGeneration):
    pass
"""
_NO_CONTEXT = """
@MULTIMODAL_REGISTRY.register_image_pixel_input_mapper(lambda items: {})
class NoContextLlava(LlavaForConditionalGeneration):
    pass
"""
PLUGINS = {
    "broken": "1 / 0",
    "short": _IMPORTS + _SHORT,
    "short_again": _IMPORTS + _SHORT,
    "bare": _IMPORTS + _BARE,
    "broken_mapper": _IMPORTS + _BROKEN_MAPPER,
    "leaving": "import sys; sys.exit(4)",
    "plain": _IMPORTS + _PLAIN,
    "colorsys": _IMPORTS,
    "video_mapper": _IMPORTS + _VIDEOS,
    "no_context": _IMPORTS + _NO_CONTEXT,
}


@pytest.fixture(scope="module")
def refused(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, subprocess.CompletedProcess[str]]]:
    folder = tmp_path_factory.mktemp("refusals")

    def refuse(case: tuple[int, str]) -> tuple[Path, subprocess.CompletedProcess[str]]:
        job = jobs.write_job(folder / str(case[0]), jobs.rows(3), **REFUSALS[case[1]][0])
        for name, text in PLUGINS.items():
            (job.parent / f"{name}.py").write_text(text)
        return job, jobs.run(job, forked=case[1] not in STARTED)

    with ThreadPoolExecutor(max_workers=2) as pool:
        return dict(zip(REFUSALS, pool.map(refuse, enumerate(REFUSALS)), strict=True))


@pytest.mark.parametrize("case", REFUSALS)
def test_a_job_that_cannot_start_is_refused(
    case: str, refused: dict[str, tuple[Path, subprocess.CompletedProcess[str]]]
) -> None:
    job, finished = refused[case]
    assert finished.returncode == 2, finished.stderr
    assert finished.stderr.startswith("run-batch: ") and REFUSALS[case][1] in finished.stderr, finished.stderr
    assert "Traceback" not in finished.stderr and finished.stdout == ""
    assert not (job.parent / "out").exists()


def with_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    """A job whose checkpoint is a LLaVA with other weights."""
    save_llava(folder / "model")
    weights = load_file(folder / "model" / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model" / "model.safetensors", {"format": "pt"})
    return jobs.write_job(folder, jobs.rows(3), model={"path": str(folder / "model")})


DOWN = "language_model.model.layers.0.mlp.down_proj.weight"


def test_an_engine_that_does_not_start_is_told_in_one_line(tmp_path: Path) -> None:
    job = with_weights(tmp_path, lambda weights: weights.update({DOWN: torch.ones(3, 3)}))
    finished = jobs.run(job, "--quiet")
    assert finished.returncode == 1 and "Traceback" not in finished.stderr
    assert finished.stderr.startswith("run-batch: the engine does not start: ")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("processes", ["0", "1"])
def test_a_checkpoint_that_lacks_weights_is_refused_by_their_names(
    processes: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # With 1, the engine is a process of its own, as on a GPU.
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", processes)
    job = with_weights(tmp_path, lambda weights: weights.pop(DOWN))
    finished = jobs.run(job, "--quiet")
    assert finished.returncode == 2
    # A process of vLLM's own logs its traceback before.
    last = finished.stderr.splitlines()[-1] if processes == "1" else finished.stderr.strip()
    assert last.startswith("run-batch: LlavaForConditionalGeneration: the checkpoint lacks weights")
    assert last.endswith(": language_model.model.layers.0.mlp.down_proj.weight")
    assert not (tmp_path / "out").exists()


def test_check_shows_the_plan_without_writing_anything(tmp_path: Path) -> None:
    columns = jobs.rows(120)
    columns["image"][1] = b"x"
    job = jobs.write_job(tmp_path, columns)
    finished = jobs.run(job, command="check", forked=False)
    assert finished.returncode == 0, finished.stderr
    assert "input: 120 rows" in finished.stdout and "3 shards of 50 rows" in finished.stdout
    assert "15 can be mapped, 1 fail" in finished.stdout and "row 1: image_decode: " in finished.stdout
    assert not (tmp_path / "out").exists()
    status = jobs.run(job, command="status")
    assert status.returncode == 0 and status.stdout.startswith("not started")


def test_usage_errors_have_exit_code_2() -> None:
    for words in (["--config"], [], ["--nonsense"], ["chekc"]):
        finished = subprocess.run([str(jobs.COMMAND), *words], capture_output=True, text=True)
        assert finished.returncode == 2 and "Traceback" not in finished.stderr
