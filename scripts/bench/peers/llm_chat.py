"""The script that vLLM's docs suggest for chat models: LLM.chat over a list of messages with base64 images."""

import pyarrow as pa
import pyarrow.parquet as pq
from common import ENGINE, OUTPUT, SAMPLING, SETTINGS, Times, message, rows
from vllm import LLM, SamplingParams

if __name__ == "__main__":
    times = Times()
    llm = LLM(**ENGINE)
    times.note("ready")
    ids, conversations = [], []
    for row_id, image, prompt in rows():
        ids.append(row_id)
        conversations.append([message(image, prompt)])
    template = SETTINGS["chat_template"]
    outputs = llm.chat(
        conversations,
        SamplingParams(**SAMPLING),
        use_tqdm=False,
        chat_template=template,
        chat_template_content_format="string" if template else "auto",
    )
    times.note("first")
    pq.write_table(pa.table({"id": ids, "text": [output.outputs[0].text for output in outputs]}), OUTPUT)
    times.tell()
