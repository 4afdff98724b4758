"""Fields of vLLM's EngineArgs and SamplingParams that a job cannot set: run-batch sets them, or they do nothing here.

A setting that does nothing is refused, so that nobody takes results for what they are not. Needs no vLLM: a job is
refused before that is imported.
"""

from collections.abc import Mapping
from typing import Any

from run_batch.model.checkpoint.media_settings import find_refused_media

_NO_COLUMN = "the results have no column for it"
_NO_SERVER = "it is for vLLM's server, and run-batch starts none"
_NO_STATISTICS = "vLLM's own statistics are off, run-batch reports progress itself"
_NO_CACHE = "images are mapped in worker processes, vLLM's own cache of mapped images stays off"
_NO_SLEEP = "run-batch never puts its engine to sleep"
_ONE_MACHINE = "an engine runs on one machine; for more machines run shares of the job (--task-count, run-batch submit)"
_WHOLE_TEXTS = "results are written when a row is finished"
_NO_DATA_PARALLEL = (
    "vLLM's data parallelism does not run offline; engine.data_parallel_size sets how many engines run on a machine, "
    "each as a process of its own; for more machines there are --task-index I --task-count N and run-batch submit"
)

_ENGINE = {
    "model": "set model.path instead",
    "trust_remote_code": "set model.trust_remote_code instead",
    "renderer_num_workers": "set preprocess.workers instead",
    "allowed_local_media_path": "set input.media_root instead",
    "allowed_media_domains": "set input.allowed_hosts instead",
    "default_mm_loras": "set model.lora instead",
    "skip_tokenizer_init": "prompts and texts need the tokenizer",
    "interleave_mm_strings": "write the placeholder where the image belongs, in prompt.template or in a message",
    "enable_prompt_embeds": "prompts are text",
    "scheduling_policy": "set input.priority_column instead, or else all rows have the same priority",
    "profiler_config": "run-batch starts no profile",
    "max_parallel_loading_workers": "vLLM does not use it any more",
    "disable_cascade_attn": "vLLM does not use it any more",
    "enable_mixed_moe_lora_format": "all adapters of a job have one format",
    "max_lora_cls_labels": "adapters of classification heads are not applied",
    "mm_encoder_only": "run-batch generates text, or pools whole prompts",
    **dict.fromkeys(
        ("mm_processor_cache_gb", "mm_processor_cache_type", "mm_shm_cache_max_object_size_mb"),
        _NO_CACHE,
    ),
    **dict.fromkeys(
        ("served_model_name", "tokens_only", "max_num_queued_reqs", "max_num_queued_tokens", "weight_transfer_config"),
        _NO_SERVER,
    ),
    **dict.fromkeys(
        (
            "disable_log_stats",
            "use_tqdm_on_load",
            "aggregate_engine_logging",
            "show_hidden_metrics_for_version",
            "otlp_traces_endpoint",
            "collect_detailed_traces",
            "per_request_spec_decode_metrics",
            "kv_cache_metrics",
            "kv_cache_metrics_sample",
            "custom_histogram_buckets",
            "cudagraph_metrics",
            "enable_mfu_metrics",
            "enable_logging_iteration_details",
            "enable_mm_processor_stats",
        ),
        _NO_STATISTICS,
    ),
    **dict.fromkeys(
        (
            "enable_sleep_mode",
            "sleep_mode_offload_cudagraph",
            "sleep_preserve_parameter_names",
            "enable_nccl_comm_suspend",
        ),
        _NO_SLEEP,
    ),
    **dict.fromkeys(("nnodes", "node_rank", "master_addr", "master_port"), _ONE_MACHINE),
    **dict.fromkeys(
        ("enable_elastic_ep", "elastic_ep_max_dp_size", "dp_sync_interval", "disable_nccl_for_dp_synchronization"),
        _NO_DATA_PARALLEL,
    ),
    **dict.fromkeys(
        ("return_sampling_mask", "enable_return_routed_experts", "aux_output_config", "io_processor_plugin"), _NO_COLUMN
    ),
    **dict.fromkeys(("video_pruning_rate", "video_pruning_method"), "run-batch gives the model whole videos"),
    "mm_ipc_gpu_memory_gb": "videos are decoded in worker processes, on the CPU",
    "stream_interval": _WHOLE_TEXTS,
}
_SAMPLING = {
    "detokenize": "results are text",
    "flat_logprobs": "it only changes how vLLM holds logprobs in memory",
    **dict.fromkeys(("output_kind", "stream_interval"), _WHOLE_TEXTS),
    **dict.fromkeys(("skip_clone", "output_text_buffer_length"), "vLLM sets it itself"),
    **dict.fromkeys(
        ("prompt_logprob_token_ids", "prompt_logprob_start", "routed_experts_prompt_start"),
        _NO_COLUMN,
    ),
}
_TABLES = {"engine": _ENGINE, "sampling": _SAMPLING}
# Passed to vLLM by run-batch: refused with any value.
_PASSED = {
    *("model", "trust_remote_code", "mm_processor_cache_gb", "disable_log_stats", "use_tqdm_on_load"),
    *("detokenize", "output_kind"),
}
# Values of other fields that change nothing, besides false.
_OFF: Mapping[str, tuple[Any, ...]] = {
    "nnodes": (1,),
    "scheduling_policy": ("fcfs",),
}


def why_refused(table: str, key: str, value: Any = ...) -> str | None:
    """Why a job cannot set a field, and what to do instead; None where it can, or vLLM has no such field.

    Args:
        table: `engine` or `sampling`.
    """
    if key not in _PASSED and (value is None or value is False or value in _OFF.get(key, ())):
        return None
    if table == "engine" and key.startswith("data_parallel_") and key != "data_parallel_size":
        return _NO_DATA_PARALLEL
    return _TABLES[table].get(key)


def find_refused(
    engine: Mapping[str, Any],
    sampling: Mapping[str, Any],
    rows_bring_sampling: bool,
    has_adapters: bool = False,
    has_videos: bool = False,
) -> str | None:
    """What is wrong with settings that do nothing, alone or together; None for nothing.

    Args:
        engine, sampling: the job's tables.
        rows_bring_sampling: the job has an `input.sampling_column`.
        has_adapters: the job has LoRA adapters.
        has_videos: rows have videos, or may have some in messages.
    """
    for table, values in (("engine", engine), ("sampling", sampling)):
        for key, value in values.items():
            reason = why_refused(table, key, value)
            if reason is not None:
                return f"{table}.{key} cannot be set: {reason}"
    return (
        _lacks_its_other_half(engine, sampling)
        or _lacks_adapters(engine, has_adapters)
        or find_refused_media(engine.get("media_io_kwargs"), has_videos)
        or _reasons_about_nothing(engine, sampling, rows_bring_sampling)
    )


# Fields of SamplingParams that do nothing, or fail every row, without one of these of EngineArgs.
_NEEDED = {
    "thinking_token_budget": ("reasoning_parser", "reasoning_config"),
    "trace_decode_token_ids": ("enable_trace_replay",),
    "watermarking": ("watermark_config",),
}


def _lacks_its_other_half(engine: Mapping[str, Any], sampling: Mapping[str, Any]) -> str | None:
    for key, needed in _NEEDED.items():
        if sampling.get(key) not in (None, False) and not any(engine.get(name) for name in needed):
            return (
                f"sampling.{key} does nothing without engine.{' or engine.'.join(needed)}: set it, or remove this one"
            )
    if sampling.get("logprob_token_ids") and sampling.get("logprobs") is None:
        count = len(sampling["logprob_token_ids"])
        return f"sampling.logprob_token_ids needs sampling.logprobs = {count}, which makes the result column logprobs"
    return None


def _lacks_adapters(engine: Mapping[str, Any], has_adapters: bool) -> str | None:
    if has_adapters and engine.get("enable_lora") is False:
        return "engine.enable_lora = false contradicts model.lora and [lora]"
    if has_adapters and engine.get("worker_extension_cls"):
        return "engine.worker_extension_cls excludes LoRA adapters, which have an extension of their own"
    if has_adapters:
        return None
    named = next((key for key, value in engine.items() if "lora" in key and value not in (None, False)), None)
    return named and f"engine.{named} does nothing without model.lora or a table [lora]: name an adapter there"


def _reasons_about_nothing(
    engine: Mapping[str, Any], sampling: Mapping[str, Any], rows_bring_sampling: bool
) -> str | None:
    """A parser of reasoning takes no text apart offline: it only tells where a grammar or a budget begins to count."""
    structured = engine.get("structured_outputs_config")
    named = [
        f"engine.{key}"
        for key in ("reasoning_parser", "reasoning_parser_plugin", "reasoning_config")
        if engine.get(key)
    ]
    if isinstance(structured, Mapping):
        keys = ("reasoning_parser", "reasoning_parser_plugin")
        named += [f"engine.structured_outputs_config.{key}" for key in keys if structured.get(key)]
    used = rows_bring_sampling or any(
        sampling.get(key) is not None for key in ("structured_outputs", "thinking_token_budget")
    )
    if not named or used:
        return None
    return (
        f"{named[0]} does nothing without sampling.structured_outputs or sampling.thinking_token_budget: the text of a "
        "result holds the reasoning as it is; remove it"
    )
