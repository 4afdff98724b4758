"""A script tuned with vLLM's public API: AsyncLLM, images decoded in threads, two renderer workers."""

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq
from common import ENGINE, OUTPUT, SAMPLING, Times, decode, rows
from vllm import SamplingParams
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM


async def main() -> None:
    times = Times()
    engine = AsyncLLM.from_engine_args(
        AsyncEngineArgs(**ENGINE, renderer_num_workers=2, mm_processor_cache_gb=0, disable_log_stats=True)
    )
    times.note("ready")
    params = SamplingParams(**SAMPLING, output_kind=RequestOutputKind.FINAL_ONLY)
    pool = ThreadPoolExecutor(len(os.sched_getaffinity(0)))
    seats = asyncio.Semaphore(2 * ENGINE["max_num_seqs"])
    texts: dict[str, str] = {}

    async def generate(row_id: str, image: bytes, prompt: str) -> None:
        decoded = await asyncio.get_running_loop().run_in_executor(pool, decode, image)
        request = {"prompt": prompt, "multi_modal_data": {"image": decoded}}
        async for output in engine.generate(request, params, row_id):
            texts[row_id] = output.outputs[0].text
        times.note("first")
        seats.release()

    async with asyncio.TaskGroup() as group:
        for row in rows():
            await seats.acquire()
            group.create_task(generate(*row))
    ids = sorted(texts)
    pq.write_table(pa.table({"id": ids, "text": [texts[row_id] for row_id in ids]}), OUTPUT)
    engine.shutdown()
    times.tell()


if __name__ == "__main__":
    asyncio.run(main())
