"""InternVL in its own format: the texts of a job are those of vLLM's own `LLM.chat`."""

from pathlib import Path

import pyarrow as pa
import pytest
from bulk_mapping import IMAGES
from internvl_chat import save_internvl_chat
from vllm_chat import chat, messages

import jobs

ENGINE = {"dtype": "float32", "max_model_len": 4096, "max_num_seqs": 8, "enforce_eager": True}
ROWS = [([image], f"What is in picture {number}?") for number, image in enumerate(IMAGES[:4])]
ROWS += [([], "Say something."), (IMAGES[1:3], "Compare the two.")]


@pytest.mark.engine
@pytest.mark.long
def test_texts_are_those_of_vllms_own_chat(tmp_path: Path) -> None:
    save_internvl_chat(tmp_path / "model")
    images, prompts = zip(*ROWS, strict=True)
    rows = pa.table(
        {
            "uid": [f"u{number}" for number in range(len(ROWS))],
            "image": pa.array(images, pa.list_(pa.binary())),
            "prompt": list(prompts),
        }
    )
    model = {"path": str(tmp_path / "model"), "trust_remote_code": True}
    job = jobs.write_job(tmp_path, rows, model=model, engine=ENGINE, prompt={"template": None, "chat": True})
    results = jobs.succeed(job)
    assert results["error"].null_count == len(ROWS), results["error"]
    expected = chat(tmp_path / "model", [messages(*row) for row in ROWS], trust_remote_code=True, **ENGINE)
    assert results["text"].to_pylist() == expected
    assert len(set(expected)) > len(ROWS) // 2, "the texts hardly depend on the images"
