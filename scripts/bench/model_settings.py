"""Defines the models of the benchmark: how a checkpoint is made, and the prompt and settings that all systems share."""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from workloads import FOLDER, PROMPT, ROOT, make_model

QWEN_PROMPT = "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>{prompt}<|im_end|>\n<|im_start|>assistant\n"


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """A model of the benchmark.

    Attributes:
        make: writes the checkpoint, unless it exists; returns its path.
        prompt: what every system sends; `{prompt}` stands for the row's text.
        engine: fields of vLLM's EngineArgs.
        peer_engine: more of them for peers, which use the model without run-batch's plugin.
        chat_template: for `vllm run-batch`, which takes no prompts, only messages; None for the checkpoint's own.
        plugins: modules in peers/ that every process of the peers imports.
    """

    make: Callable[[], Path]
    prompt: str
    engine: Mapping[str, Any]
    max_tokens: int = 16
    peer_engine: Mapping[str, Any] = field(default_factory=dict)
    chat_template: str | None = None
    plugins: tuple[str, ...] = ("engine_log",)

    def for_peers(self) -> str:
        """The settings as JSON for the environment variable BENCH_SETTINGS, which peers/common.py reads."""
        return json.dumps(
            {
                "prompt": self.prompt,
                "engine": {**self.engine, **self.peer_engine},
                "max_tokens": self.max_tokens,
                "chat_template": self.chat_template,
            }
        )


def _tiny_qwen() -> Path:
    """Qwen2.5-VL with two layers of random weights, as the tests make it."""
    return _qwen("qwen2.5-vl", lambda folder: None)


def _qwen(name: str, change: Callable[[Path], None]) -> Path:
    folder = FOLDER / f"model-{name}"
    if not (folder / "done").exists():
        sys.path.insert(0, str(ROOT / "tests"))
        from built_in_families import save_family

        save_family(folder, "qwen2_5_vl")
        change(folder)
        (folder / "done").touch()
    return folder


def _qwen_3b() -> Path:
    """Qwen2.5-VL with the sizes of the 3B model; vLLM makes its weights (`load_format = "dummy"`)."""
    return _qwen("qwen2.5-vl-3b", _enlarge)


def _enlarge(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    config = json.loads((folder / "config.json").read_text())
    vocabulary = 151_936
    config["text_config"].update(
        vocab_size=vocabulary,
        hidden_size=2048,
        intermediate_size=11_008,
        num_hidden_layers=36,
        num_attention_heads=16,
        num_key_value_heads=2,
        max_position_embeddings=32_768,
        max_window_layers=36,
        layer_types=["full_attention"] * 36,
        dtype="bfloat16",
    )
    config["text_config"]["rope_parameters"]["mrope_section"] = [16, 24, 24]
    config["vision_config"].update(
        depth=32,
        hidden_size=1280,
        num_heads=16,
        intermediate_size=3420,
        out_hidden_size=2048,
        fullatt_block_indexes=[7, 15, 23, 31],
    )
    config.update(tie_word_embeddings=True, dtype="bfloat16")
    (folder / "config.json").write_text(json.dumps(config))
    # Every token id that the model may generate needs a text.
    path = folder / "tokenizer.json"
    tokenizer = json.loads(path.read_text())
    first = 1 + max(token["id"] for token in tokenizer["added_tokens"])
    tokenizer["model"]["vocab"].update({f"w{token}": token for token in range(first, vocabulary)})
    path.write_text(json.dumps(tokenizer))


_LLAVA_TEMPLATE = "{{ bos_token }}USER: {{ messages[0].content }} ASSISTANT:"
_SMALL = dict(dtype="float32", max_num_seqs=64, enforce_eager=True, kv_cache_memory_bytes=1 << 27)
# About 64 image tokens a row for 640x480; at the checkpoint's own pixels, 391.
_FEW_PIXELS = {"mm_processor_kwargs": {"max_pixels": 50_176}}
# For a GPU with 40 GB or more; vLLM's defaults otherwise.
_ON_GPU = {"dtype": "bfloat16", "max_model_len": 4096, "max_num_seqs": 256, "load_format": "dummy"}
LLAVA = ModelSettings(
    make_model,
    PROMPT,
    {**_SMALL, "max_model_len": 256},
    peer_engine={"hf_overrides": {"architectures": ["StockLlava"]}},
    # vLLM puts the placeholder and a line break before the text.
    chat_template=_LLAVA_TEMPLATE,
    plugins=("stock_llava", "engine_log"),
)
MODELS = {
    "llava": LLAVA,
    # With more pixels, the engine on a CPU would be the only bound.
    "qwen2.5-vl": ModelSettings(_tiny_qwen, QWEN_PROMPT, {**_SMALL, "max_model_len": 512, **_FEW_PIXELS}),
    "qwen2.5-vl-3b": ModelSettings(_qwen_3b, QWEN_PROMPT, _ON_GPU, max_tokens=32),
    "qwen2.5-vl-3b-small": ModelSettings(_qwen_3b, QWEN_PROMPT, {**_ON_GPU, **_FEW_PIXELS}, max_tokens=32),
}
