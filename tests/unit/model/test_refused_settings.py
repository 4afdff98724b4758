"""Settings that do nothing are refused, and every field of the installed vLLM has been looked at."""

import dataclasses
from typing import Any

import pytest

from run_batch.model.checkpoint.refused_settings import find_refused, why_refused

# Fields that work here. A field that a new version of vLLM brings fails the test below until it is tried and listed,
# or refused.
ENGINE_FIELDS_THAT_WORK = """
model_weights runner convert pooler_config tokenizer hf_config_path tokenizer_mode download_dir
safetensors_load_strategy
safetensors_prefetch_num_threads safetensors_prefetch_block_size load_format config_format dtype kv_cache_dtype seed
max_model_len cudagraph_capture_sizes max_cudagraph_capture_size ir_op_priority distributed_executor_backend
pipeline_parallel_size data_parallel_size distributed_timeout_seconds cpu_distributed_timeout_seconds numa_bind
numa_bind_nodes numa_bind_cpus device_ids tensor_parallel_size prefill_context_parallel_size
decode_context_parallel_size
dcp_comm_backend dcp_q_replicate dcp_kv_cache_interleave_size cp_kv_cache_interleave_size enable_hc_sp
enable_expert_parallel enable_batch_sharded_sampling enable_ep_weight_filter moe_backend linear_backend
sparse_indexer_topk_backend all2all_backend enable_dbo ubatch_size dbo_decode_token_threshold
dbo_prefill_token_threshold eplb_config enable_eplb expert_placement_strategy block_size enable_prefix_caching
prefix_caching_hash_algo prefix_cache_retention_interval disable_sliding_window offload_backend cpu_offload_gb
cpu_offload_params offload_group_size offload_num_in_group offload_prefetch_step offload_params gpu_memory_utilization
kv_cache_memory_bytes max_num_batched_tokens max_num_scheduled_tokens long_prefill_token_threshold
long_prefill_token_threshold_adaptive max_num_seqs max_num_active_seqs enable_lora max_loras max_lora_rank max_cpu_loras
fully_sharded_loras lora_dtype lora_target_modules enable_tower_connector_lora specialize_active_lora
enable_moe_shared_loras max_logprobs logprobs_mode use_fp64_gumbel
enable_trace_replay revision code_revision hf_token hf_overrides model_class_overrides tokenizer_revision quantization
quantization_config allow_deprecated_quantization enforce_eager disable_custom_all_reduce enable_shm_tensor_arena
language_model_only limit_mm_per_prompt enable_mm_embeds mm_processor_kwargs mm_hasher_algorithm mm_encoder_tp_mode
mm_encoder_attn_backend mm_encoder_attn_dtype mm_encoder_fp8_scale_path mm_encoder_fp8_scale_save_path
mm_encoder_fp8_scale_save_margin skip_mm_profiling mm_tensor_ipc media_io_kwargs mm_processor_device
mm_device_do_normalize ray_workers_use_nsight num_gpu_blocks_override model_loader_extra_config ignore_patterns
enable_chunked_prefill
disable_chunked_mm_input scheduler_reserve_full_isl prefill_schedule_interval watermark
disable_hybrid_kv_cache_manager structured_outputs_config reasoning_parser reasoning_parser_plugin speculative_config
spec_method spec_model spec_tokens watermark_config diffusion_config enable_layerwise_nvtx_tracing jit_monitor_mode
jit_monitor_verbose scheduler_cls compilation_config attention_config engram_config mamba_config kernel_config
enable_flashinfer_autotune worker_cls worker_extension_cls logging_config log_level log_config_file kv_transfer_config
kv_events_config ec_transfer_config ec_manager_config reasoning_config generation_config enable_cumem_allocator
override_generation_config model_impl attention_backend kv_cache_dtype_skip_layers mamba_cache_dtype
mamba_ssm_cache_dtype mamba_block_size prefix_match_unit mamba_cache_mode enable_mamba_shared_prefix_checkpoint
replayssm_buffer_len use_replayssm mamba_backend mamba_ssu_algorithm enable_mamba_cache_stochastic_rounding
mamba_cache_philox_rounds additional_config pt_load_map_location logits_processors async_scheduling
kv_sharing_fast_prefill swa_bounded_replay optimization_level performance_mode fault_tolerance_config
enable_fault_tolerance kv_offloading_size kv_offloading_backend shutdown_timeout fail_on_environ_validation
gdn_prefill_backend kda_prefill_backend kda_decode_backend
"""
SAMPLING_FIELDS_THAT_WORK = """
n presence_penalty frequency_penalty repetition_penalty temperature watermarking top_p top_k min_p seed stop
stop_token_ids ignore_eos max_tokens min_tokens logprobs prompt_logprobs logprob_token_ids skip_special_tokens
spaces_between_special_tokens include_stop_str_in_output structured_outputs logit_bias allowed_token_ids extra_args
bad_words skip_reading_prefix_cache thinking_token_budget repetition_detection trace_decode_token_ids
"""


def test_every_field_of_the_installed_vllm_is_known_to_work_or_refused() -> None:
    from vllm import SamplingParams
    from vllm.engine.arg_utils import EngineArgs

    engine = {field.name for field in dataclasses.fields(EngineArgs) if not field.name.startswith("_")}
    sampling = {name for name in SamplingParams.__struct_fields__ if not name.startswith("_")}
    assert {name for name in engine if why_refused("engine", name) is None} == set(ENGINE_FIELDS_THAT_WORK.split())
    assert {name for name in sampling if why_refused("sampling", name) is None} == set(
        SAMPLING_FIELDS_THAT_WORK.split()
    )


@pytest.mark.parametrize(
    ("engine", "sampling", "says"),
    [
        ({"enable_lora": True}, {}, "engine.enable_lora does nothing without model.lora"),
        ({"default_mm_loras": {"image": "a"}}, {}, "engine.default_mm_loras"),
        ({"lora_of_a_later_version": 1}, {}, "engine.lora_of_a_later_version"),
        ({"data_parallel_rank": 2}, {}, "engine.data_parallel_rank cannot be set: vLLM's data parallelism"),
        ({"data_parallel_backend": "ray"}, {}, "--task-index"),
        ({"served_model_name": "m"}, {}, "engine.served_model_name"),
        ({"allowed_media_domains": ["a.org"]}, {}, "set input.allowed_hosts instead"),
        ({"mm_processor_cache_gb": 0}, {}, "engine.mm_processor_cache_gb"),
        ({"disable_log_stats": False}, {}, "engine.disable_log_stats"),
        ({"mm_encoder_only": True}, {}, "engine.mm_encoder_only"),
        ({"nnodes": 2}, {}, "engine.nnodes"),
        ({}, {"prompt_logprob_start": 0}, "sampling.prompt_logprob_start cannot be set: the results have no column"),
        ({}, {"detokenize": False}, "sampling.detokenize"),
        ({}, {"logprob_token_ids": [3, 5]}, "needs sampling.logprobs = 2"),
        ({}, {"thinking_token_budget": 5}, "engine.reasoning_parser or engine.reasoning_config"),
        ({}, {"watermarking": True}, "engine.watermark_config"),
        ({"reasoning_parser": "qwen3"}, {"temperature": 0}, "engine.reasoning_parser does nothing"),
        (
            {"structured_outputs_config": {"reasoning_parser": "qwen3"}},
            {},
            "engine.structured_outputs_config.reasoning_parser does nothing",
        ),
    ],
)
def test_a_setting_that_does_nothing_is_refused_with_its_key(
    engine: dict[str, Any], sampling: dict[str, Any], says: str
) -> None:
    assert says in (find_refused(engine, sampling, rows_bring_sampling=False) or "")


@pytest.mark.parametrize(
    ("engine", "sampling"),
    [
        ({"data_parallel_size": 1, "enable_lora": False, "scheduling_policy": "fcfs"}, {"logprobs": 2}),
        ({"reasoning_parser": "qwen3"}, {"structured_outputs": {"json": {}}}),
        ({"reasoning_parser": "qwen3"}, {"thinking_token_budget": 10}),
        ({}, {"logprob_token_ids": [3, 5], "logprobs": 2, "watermarking": False}),
    ],
)
def test_a_setting_that_works_is_taken(engine: dict[str, Any], sampling: dict[str, Any]) -> None:
    assert find_refused(engine, sampling, rows_bring_sampling=False) is None


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"image": {"image_mode": "L"}}, "engine.media_io_kwargs.image cannot be set"),
        ({"video": 3}, "expected a table [engine.media_io_kwargs.video]"),
        ({"video": {"fps": 0}}, "engine.media_io_kwargs.video.fps = 0: expected a number of frames a second"),
        ({"video": {"num_frames": True}}, "engine.media_io_kwargs.video.num_frames = True: expected a whole number"),
        ({"video": {"backend": "torchcodec"}}, "engine.media_io_kwargs.video.backend cannot be set"),
    ],
)
def test_settings_of_videos_that_do_nothing_or_fit_no_loader_are_refused(given: Any, says: str) -> None:
    assert says in (find_refused({"media_io_kwargs": given}, {}, False, has_videos=True) or "")
    assert find_refused({"media_io_kwargs": {"video": {"fps": 0.5}}}, {}, False, has_videos=True) is None
    without = find_refused({"media_io_kwargs": {"video": {"fps": 0.5}}}, {}, False)
    assert without == (
        "engine.media_io_kwargs does nothing without videos: name their column in input.video_column, or remove it"
    )


def test_a_parser_of_reasoning_is_taken_where_rows_may_bring_a_grammar() -> None:
    assert find_refused({"reasoning_parser": "qwen3"}, {}, rows_bring_sampling=True) is None
