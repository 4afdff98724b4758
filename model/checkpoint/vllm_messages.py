"""What vLLM says where an engine does not start, in the words of job.toml: a table of texts, with the keys to change.

vLLM's own text names options of its command line, arguments in Python and variables of the environment. `--verbose`
shows it as it is, with its traceback.
"""

import re
from collections.abc import Mapping, Sequence

from run_batch.model.checkpoint.vllm_field_names import ENGINE

# What vLLM says, on one line and as far as it says anything that is needed, and what is said instead.
_WORDS: Sequence[tuple[str, str]] = (
    (
        r"User-specified max_model_len \((?P<asked>\d+)\) is greater than the derived max_model_len "
        r"\((?P<key>\w+)=(?P<most>\d+)",
        "engine.max_model_len = {asked} is more than the context of the model, {most} tokens ({key} of its "
        "config.json): set engine.max_model_len to {most} at most, or leave it out",
    ),
    (
        r"max seq len \((?P<length>\d+)\), \((?P<needed>[\d.]+) GiB KV cache is needed, which is larger than the "
        r"available KV cache memory \((?P<there>[\d.]+) GiB\)\.(?: Based on .*? length is (?P<fits>\d+)\.)?",
        "a row of engine.max_model_len = {length} tokens takes {needed} GiB of KV cache, and there are {there} GiB: "
        "lower engine.max_model_len{fits: to |}, or raise engine.gpu_memory_utilization (or "
        "engine.kv_cache_memory_bytes, if the job sets it)",
    ),
    (
        r"No available memory for the cache blocks|Cannot auto-fit max_model_len",
        "the model leaves no memory for the KV cache: raise engine.gpu_memory_utilization (or "
        "engine.kv_cache_memory_bytes, if the job sets it), lower engine.max_num_seqs or "
        "engine.max_num_batched_tokens, divide the model by engine.tensor_parallel_size, or take a quantized one",
    ),
    (
        r"Available memory on node \d+ \((?P<there>[\d.]+)/[\d.]+ GiB\) on startup is less than desired CPU memory "
        r"utilization \((?P<part>[\d.]+), (?P<asked>[\d.]+) GiB\)",
        "engine.gpu_memory_utilization = {part} asks for {asked} GiB, which on a CPU is of its memory, and {there} "
        "GiB are free: lower it, set engine.kv_cache_memory_bytes, or end what else uses the memory",
    ),
    (
        r"Available memory on node \d+ \((?P<there>[\d.]+)/[\d.]+ GiB\) on kv cache allocation is less than requested "
        r"memory for kv \((?P<asked>[-\d./]+) GiB\)",
        "the KV cache is to have {asked} GiB, and {there} GiB are free: lower engine.kv_cache_memory_bytes (or "
        "engine.gpu_memory_utilization, which on a CPU is of its memory), or end what else uses the memory",
    ),
    (
        r"Free memory on device (?P<device>\S+) \((?P<there>[\d.]+)/(?P<all>[\d.]+) GiB\) on startup is less than "
        r".*?\((?P<part>[\d.]+), (?P<asked>[\d.]+) GiB\)",
        "engine.gpu_memory_utilization = {part} asks for {asked} GiB of {device}, and {there} of {all} GiB are free: "
        "end what else uses the GPU (nvidia-smi shows it), or lower engine.gpu_memory_utilization",
    ),
    (
        r"out of memory occurred when warming up \w+ with (?P<rows>\d+)",
        "the GPU's memory is too small for {rows} rows at once: lower engine.max_num_seqs or "
        "engine.gpu_memory_utilization",
    ),
    (
        r"CUDA out of memory\. Tried to allocate (?P<asked>[\d.]+ \w+)|(?:HIP|XPU) out of memory",
        "the GPU's memory is too small{asked: for |}: end what else uses the GPU (nvidia-smi shows it), divide the "
        "model by engine.tensor_parallel_size, take a quantized one, or lower engine.max_model_len, "
        "engine.max_num_seqs or engine.gpu_memory_utilization",
    ),
    (
        r"max_num_batched_tokens \((?P<tokens>\d+)\) is smaller than max_model_len \((?P<length>\d+)\)",
        "engine.max_num_batched_tokens = {tokens} is less than engine.max_model_len = {length}: raise the one, lower "
        "the other, or set engine.enable_chunked_prefill = true",
    ),
    (
        r"max_num_batched_tokens \((?P<tokens>\d+)\) must be greater than or equal to max_num_seqs \((?P<rows>\d+)\)",
        "engine.max_num_batched_tokens = {tokens} is less than engine.max_num_seqs = {rows}: raise the one, or lower "
        "the other",
    ),
    (
        r"World size \((?P<asked>\d+)\) is larger than the number of available GPUs \((?P<there>\d+)\)",
        "an engine takes {asked} GPUs (engine.tensor_parallel_size times engine.pipeline_parallel_size), and this "
        "machine has {there} for it (see CUDA_VISIBLE_DEVICES)",
    ),
    (
        r"Total number of attention heads \((?P<heads>\d+)\) must be divisible by tensor parallel size "
        r"\((?P<size>\d+)\)",
        "engine.tensor_parallel_size = {size} does not divide the {heads} attention heads of the model: set a divisor",
    ),
    (
        r"Bfloat16 is only supported on GPUs with compute capability of at least 8\.0\. Your (?P<gpu>.+?) GPU",
        '{gpu} cannot calculate in bfloat16: set engine.dtype = "half"',
    ),
    (
        r"consider setting `trust_remote_code=True`|pass the argument `trust_remote_code=True`|requires you to "
        r"execute (?:the configuration file|custom code)|contains custom code which must be executed",
        "the checkpoint brings code of its own: read it, and set model.trust_remote_code = true to run it",
    ),
    (
        r"model type `(?P<kind>[^`]+)` but Transformers does not recognize this architecture",
        "the installed transformers does not know models of the type {kind}: take a version of vLLM and transformers "
        "that does, or a class of your own (model.plugins, model.architecture)",
    ),
    (
        r"Model architectures \[(?P<names>[^\]]*)\] are not supported for now",
        "the installed vLLM has no model class {names}: take a version that has, or name one by model.architecture, "
        "and the module of one of your own in model.plugins",
    ),
    (
        r"unhashable type: '(?:list|dict)'",
        "vLLM fails on a list of lists or tables in engine.mm_processor_kwargs: set it in its table images_kwargs",
    ),
    (
        r"Model architectures \[(?P<names>[^\]]*)\] failed to be inspected",
        "vLLM cannot import its model class {names}: --verbose shows why",
    ),
)
_TABLE = [(re.compile(pattern), text) for pattern, text in _WORDS]
# `{name: text|}`: the text and the value, where there is a value.
_OPTIONAL = re.compile(r"\{(\w+):( [^|{}]*)\|\}")
_OPTION = re.compile(r"[`']?--([a-z][a-z0-9-]+)[`']?")
_SEE = re.compile(r" ?See https://docs\.vllm\.ai/\S+ for more details\.")


def in_own_words(text: str) -> str:
    """What vLLM says, on one line, with the keys of job.toml; text that is not known has its options replaced alone."""
    for pattern, words in _TABLE:
        found = pattern.search(text)
        if found is not None:
            return _filled_in(words, found.groupdict())
    return _OPTION.sub(_key, _SEE.sub("", text))


def _filled_in(words: str, values: Mapping[str, str | None]) -> str:
    chosen = _OPTIONAL.sub(lambda match: f"{match[2]}{values[match[1]]}" if values[match[1]] else "", words)
    return chosen.format(**values)


def _key(option: re.Match[str]) -> str:
    name = option[1].replace("-", "_")
    return f"engine.{name}" if name in ENGINE.split() else option[0]
