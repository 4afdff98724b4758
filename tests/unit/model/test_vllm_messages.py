"""What vLLM says of engines that do not start, in the words of job.toml: as the installed vLLM raises it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from run_batch.model.checkpoint.settings import ModelSettings, SettingsError, build_model_config, first_cause
from run_batch.model.checkpoint.vllm_messages import in_own_words

MODEL = Path(__file__).parents[3] / "configs" / "demo" / "model"


def changed(folder: Path, **config: Any) -> Path:
    """The demo's checkpoint with another config.json."""
    shutil.copytree(MODEL, folder / "model")
    file = folder / "model" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | config))
    return folder / "model"


@pytest.mark.parametrize(
    ("config", "engine", "said"),
    [
        ({}, {"max_model_len": 9999}, "engine.max_model_len = 9999 is more than the context of the model, 512 tokens"),
        ({"model_type": "unheard_of"}, {}, "does not know models of the type unheard_of"),
        (
            {"model_type": "unheard_of", "auto_map": {"AutoConfig": "configuration.Config"}},
            {},
            "the checkpoint brings code of its own: read it, and set model.trust_remote_code = true to run it",
        ),
    ],
)
def test_a_checkpoint_that_vllm_refuses_is_told_with_the_key_to_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: dict[str, Any], engine: dict[str, Any], said: str
) -> None:
    monkeypatch.setattr("vllm.transformers_utils.repo_utils.time.sleep", lambda _: None)  # before it tries again
    path = changed(tmp_path, **config)
    with pytest.raises(SettingsError) as raised:
        build_model_config(ModelSettings(str(path), engine=engine))
    text = str(raised.value)
    assert said in text and text.startswith(f"model.path {path}: ")
    assert "VLLM_" not in text and "--" not in text and "pip install" not in text, text


def kv_cache(available: int) -> Callable[[], Any]:
    def check() -> None:
        from vllm.v1.core.kv_cache_utils import _check_enough_kv_cache_memory

        _check_enough_kv_cache_memory(available, lambda: 8 << 30, 4096, lambda memory: 1024)

    return check


def scheduler(**settings: Any) -> Callable[[], Any]:
    def check() -> None:
        from vllm.config import SchedulerConfig

        SchedulerConfig(max_model_len=4096, is_encoder_decoder=False, **settings)

    return check


@pytest.mark.parametrize(
    ("check", "said"),
    [
        (kv_cache(0), "no memory for the KV cache: raise engine.gpu_memory_utilization (or "),
        (kv_cache(2 << 30), "takes 8.0 GiB of KV cache, and there are 2.0 GiB: lower engine.max_model_len to 1024, or"),
        (
            scheduler(max_num_batched_tokens=8, max_num_seqs=16),
            "engine.max_num_batched_tokens = 8 is less than engine.max_num_seqs = 16: ",
        ),
        (
            scheduler(max_num_batched_tokens=512, max_num_seqs=16, enable_chunked_prefill=False),
            "engine.max_num_batched_tokens = 512 is less than engine.max_model_len = 4096: ",
        ),
    ],
)
def test_settings_that_do_not_fit_the_machine_or_each_other_are_told_by_their_keys(
    check: Callable[[], Any], said: str
) -> None:
    with pytest.raises(ValueError) as raised:
        check()
    assert said in first_cause(raised.value), first_cause(raised.value)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (
            "ValueError: Free memory on device cuda:0 (10.5/79.1 GiB) on startup is less than desired GPU memory "
            "utilization (0.92, 72.8 GiB). Decrease GPU memory utilization or reduce GPU memory used by other "
            "processes.",
            "engine.gpu_memory_utilization = 0.92 asks for 72.8 GiB of cuda:0, and 10.5 of 79.1 GiB are free: ",
        ),
        (
            "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79 "
            "GiB",
            "the GPU's memory is too small for 2.00 GiB: ",
        ),
        (
            "TypeError: unhashable type: 'list'",
            "vLLM fails on a list of lists or tables in engine.mm_processor_kwargs: set it in its table images_kwargs",
        ),
        (
            "World size (4) is larger than the number of available GPUs (1) in this node. If this is intentional",
            "an engine takes 4 GPUs (engine.tensor_parallel_size",
        ),
        (
            "Available memory on node 0 (1.0/8.0 GiB) on startup is less than desired CPU memory utilization (0.92, "
            "7.4 GiB). On the CPU backend, the `--gpu-memory-utilization` flag",
            "engine.gpu_memory_utilization = 0.92 asks for 7.4 GiB, which on a CPU is of its memory, and 1.0 GiB are "
            "free",
        ),
        (
            "Reduce --block-size to 16. See https://docs.vllm.ai/en/latest/x/ for more details.",
            "Reduce engine.block_size to 16.",
        ),
        ("unknown --flag of somebody", "unknown --flag of somebody"),
        ("max seq len (16), (8 GiB KV cache", "max seq len (16), (8 GiB KV cache"),
    ],
)
def test_what_only_a_gpu_raises_and_what_is_not_known(raw: str, said: str) -> None:
    assert in_own_words(raw).startswith(said), in_own_words(raw)
