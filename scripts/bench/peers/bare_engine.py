"""Starts LLMEngine and generates for one text prompt: a lower bound for start-up time."""

from common import ENGINE, SAMPLING, Times
from vllm import EngineArgs, LLMEngine, SamplingParams

if __name__ == "__main__":
    times = Times()
    engine = LLMEngine.from_engine_args(EngineArgs(**ENGINE, mm_processor_cache_gb=0, disable_log_stats=True))
    times.note("ready")
    engine.add_request("0", {"prompt": "USER: what is this? ASSISTANT:"}, SamplingParams(**SAMPLING))
    while engine.has_unfinished_requests():
        engine.step()
    times.note("first")
    times.tell()
