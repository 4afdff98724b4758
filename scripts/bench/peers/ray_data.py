"""Runs Ray Data LLM: vLLMEngineProcessorConfig over a Ray data set of decoded images."""

from typing import Any

import ray
from common import ENGINE, INPUT, MODEL, OUTPUT, PROMPT, SAMPLING, Times, decode
from ray.data.llm import build_processor, vLLMEngineProcessorConfig


def prepare(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": row["id"],
        "prompt": PROMPT.replace("{prompt}", row["prompt"]),
        "multimodal_data": {"image": decode(row["image"])},
        "sampling_params": SAMPLING,
    }


if __name__ == "__main__":
    times = Times()
    # Ray reserves cores for its own tasks; with the machine's two, the pipeline would not start.
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    config = vLLMEngineProcessorConfig(
        model_source=MODEL,
        engine_kwargs={key: value for key, value in ENGINE.items() if key != "model"},
        batch_size=64,
        concurrency=1,
        accelerator_type=None,
        placement_group_config={"bundles": [{"CPU": 1}]},
        chat_template_stage=False,
        tokenize_stage=False,
        detokenize_stage=False,
    )
    processor = build_processor(
        config, preprocess=prepare, postprocess=lambda row: {"id": row["id"], "text": row["generated_text"]}
    )
    processor(ray.data.read_parquet(INPUT)).write_parquet(OUTPUT + ".ray")
    times.tell()
