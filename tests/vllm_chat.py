"""vLLM's own offline interface, which jobs are compared with."""

import base64
import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def messages(images: Sequence[bytes], prompt: str) -> list[dict[str, Any]]:
    """A conversation of one question about images."""
    urls = [f"data:image/png;base64,{base64.b64encode(image).decode()}" for image in images]
    parts: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": prompt}]}]


def chat(model: Path, conversations: list[Any], **engine: Any) -> list[str]:
    """What `LLM.chat` generates, greedily, eight tokens for each conversation."""
    from vllm import LLM, SamplingParams
    from vllm.distributed import cleanup_dist_env_and_memory

    llm = LLM(str(model), kv_cache_memory_bytes=1 << 27, **engine)
    try:
        outputs = llm.chat(conversations, SamplingParams(temperature=0.0, max_tokens=8), use_tqdm=False)
    finally:
        llm.llm_engine.engine_core.shutdown()
        del llm
        cleanup_dist_env_and_memory()
        gc.collect()
    return [output.outputs[0].text for output in outputs]
