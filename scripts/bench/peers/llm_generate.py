"""The simplest script: pyarrow, Pillow, and LLM.generate over a list."""

import pyarrow as pa
import pyarrow.parquet as pq
from common import ENGINE, OUTPUT, SAMPLING, Times, decode, rows
from vllm import LLM, SamplingParams

if __name__ == "__main__":
    times = Times()
    llm = LLM(**ENGINE)
    times.note("ready")
    ids, prompts = [], []
    for row_id, image, prompt in rows():
        ids.append(row_id)
        prompts.append({"prompt": prompt, "multi_modal_data": {"image": decode(image)}})
    outputs = llm.generate(prompts, SamplingParams(**SAMPLING), use_tqdm=False)
    times.note("first")
    pq.write_table(pa.table({"id": ids, "text": [output.outputs[0].text for output in outputs]}), OUTPUT)
    times.tell()
