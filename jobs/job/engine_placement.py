"""The fields of vLLM's EngineArgs whose value is no part of a job's identity."""

# Fields of EngineArgs that change how fast, where and with how much memory rows are generated, not what.
ENGINE_PLACEMENT = {
    "max_num_seqs",
    "max_num_batched_tokens",
    "gpu_memory_utilization",
    "kv_cache_memory_bytes",
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "data_parallel_size",
    "distributed_executor_backend",
    "enforce_eager",
    "enable_prefix_caching",
    "download_dir",
    "compilation_config",
    "max_parallel_loading_workers",
    "hf_token",
    "enable_lora",
    "max_loras",
    "max_cpu_loras",
    "max_lora_rank",
    "fully_sharded_loras",
    "specialize_active_lora",
}
