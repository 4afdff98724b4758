"""The fields of EngineArgs (ENGINE) and SamplingParams (SAMPLING) of one version of vLLM.

Their names, and which have a plain type (NUMBERS), a few values (CHOICES), or are tables with own fields (TABLES).
Written by scripts/write_field_names.py. Importing vLLM to find a mistake takes seconds.
"""

VERSION = "0.32.0"
ENGINE = """
model enable_return_routed_experts return_sampling_mask model_weights served_model_name tokenizer hf_config_path runner
convert skip_tokenizer_init enable_prompt_embeds tokenizer_mode trust_remote_code allowed_local_media_path
allowed_media_domains download_dir safetensors_load_strategy safetensors_prefetch_num_threads
safetensors_prefetch_block_size load_format config_format dtype kv_cache_dtype seed max_model_len
cudagraph_capture_sizes max_cudagraph_capture_size ir_op_priority distributed_executor_backend pipeline_parallel_size
master_addr master_port nnodes node_rank distributed_timeout_seconds cpu_distributed_timeout_seconds numa_bind
numa_bind_nodes numa_bind_cpus device_ids tensor_parallel_size prefill_context_parallel_size
decode_context_parallel_size dcp_comm_backend dcp_q_replicate dcp_kv_cache_interleave_size cp_kv_cache_interleave_size
data_parallel_size data_parallel_rank data_parallel_start_rank data_parallel_size_local data_parallel_address
data_parallel_rpc_port data_parallel_hybrid_lb data_parallel_external_lb data_parallel_multi_port_external_lb
data_parallel_backend enable_hc_sp enable_expert_parallel enable_batch_sharded_sampling enable_ep_weight_filter
moe_backend linear_backend sparse_indexer_topk_backend all2all_backend enable_elastic_ep elastic_ep_max_dp_size
enable_dbo ubatch_size dbo_decode_token_threshold dp_sync_interval dbo_prefill_token_threshold
disable_nccl_for_dp_synchronization eplb_config enable_eplb expert_placement_strategy max_parallel_loading_workers
block_size enable_prefix_caching prefix_caching_hash_algo prefix_cache_retention_interval disable_sliding_window
disable_cascade_attn offload_backend cpu_offload_gb cpu_offload_params offload_group_size offload_num_in_group
offload_prefetch_step offload_params gpu_memory_utilization kv_cache_memory_bytes max_num_batched_tokens
max_num_scheduled_tokens long_prefill_token_threshold long_prefill_token_threshold_adaptive max_num_seqs
max_num_active_seqs max_num_queued_reqs max_num_queued_tokens max_logprobs logprobs_mode use_fp64_gumbel
enable_trace_replay disable_log_stats aggregate_engine_logging revision code_revision hf_token hf_overrides
model_class_overrides tokenizer_revision quantization quantization_config allow_deprecated_quantization enforce_eager
disable_custom_all_reduce enable_shm_tensor_arena language_model_only limit_mm_per_prompt enable_mm_embeds
interleave_mm_strings media_io_kwargs mm_processor_kwargs mm_processor_cache_gb mm_processor_cache_type
mm_hasher_algorithm mm_shm_cache_max_object_size_mb mm_encoder_only mm_encoder_tp_mode mm_encoder_attn_backend
mm_encoder_attn_dtype mm_encoder_fp8_scale_path mm_encoder_fp8_scale_save_path mm_encoder_fp8_scale_save_margin
io_processor_plugin renderer_num_workers skip_mm_profiling video_pruning_rate video_pruning_method mm_tensor_ipc
mm_processor_device mm_ipc_gpu_memory_gb mm_device_do_normalize enable_lora max_loras max_lora_rank default_mm_loras
fully_sharded_loras max_cpu_loras lora_dtype lora_target_modules enable_tower_connector_lora specialize_active_lora
enable_mixed_moe_lora_format enable_moe_shared_loras max_lora_cls_labels ray_workers_use_nsight num_gpu_blocks_override
model_loader_extra_config ignore_patterns enable_chunked_prefill disable_chunked_mm_input scheduler_reserve_full_isl
prefill_schedule_interval watermark disable_hybrid_kv_cache_manager structured_outputs_config aux_output_config
reasoning_parser reasoning_parser_plugin speculative_config spec_method spec_model spec_tokens watermark_config
diffusion_config show_hidden_metrics_for_version otlp_traces_endpoint collect_detailed_traces
per_request_spec_decode_metrics kv_cache_metrics kv_cache_metrics_sample custom_histogram_buckets cudagraph_metrics
enable_layerwise_nvtx_tracing enable_mfu_metrics enable_logging_iteration_details jit_monitor_mode jit_monitor_verbose
enable_mm_processor_stats scheduling_policy scheduler_cls pooler_config compilation_config attention_config
engram_config mamba_config kernel_config enable_flashinfer_autotune worker_cls worker_extension_cls profiler_config
logging_config log_level log_config_file kv_transfer_config kv_events_config ec_transfer_config ec_manager_config
reasoning_config generation_config enable_sleep_mode sleep_mode_offload_cudagraph sleep_preserve_parameter_names
enable_cumem_allocator enable_nccl_comm_suspend override_generation_config model_impl attention_backend
kv_cache_dtype_skip_layers mamba_cache_dtype mamba_ssm_cache_dtype mamba_block_size prefix_match_unit mamba_cache_mode
enable_mamba_shared_prefix_checkpoint replayssm_buffer_len use_replayssm mamba_backend mamba_ssu_algorithm
enable_mamba_cache_stochastic_rounding mamba_cache_philox_rounds additional_config use_tqdm_on_load
pt_load_map_location logits_processors async_scheduling stream_interval kv_sharing_fast_prefill swa_bounded_replay
optimization_level performance_mode fault_tolerance_config enable_fault_tolerance kv_offloading_size
kv_offloading_backend tokens_only shutdown_timeout weight_transfer_config fail_on_environ_validation
gdn_prefill_backend kda_prefill_backend kda_decode_backend
"""
SAMPLING = """
n presence_penalty frequency_penalty repetition_penalty temperature watermarking top_p top_k min_p seed stop
stop_token_ids ignore_eos max_tokens min_tokens logprobs prompt_logprobs prompt_logprob_token_ids prompt_logprob_start
logprob_token_ids flat_logprobs detokenize skip_special_tokens spaces_between_special_tokens include_stop_str_in_output
output_kind stream_interval skip_clone output_text_buffer_length structured_outputs logit_bias allowed_token_ids
extra_args bad_words skip_reading_prefix_cache thinking_token_budget repetition_detection routed_experts_prompt_start
trace_decode_token_ids
"""
NUMBERS = {
    "int": """
engine.safetensors_prefetch_num_threads engine.safetensors_prefetch_block_size engine.seed engine.max_model_len
engine.max_cudagraph_capture_size engine.pipeline_parallel_size engine.master_port engine.nnodes engine.node_rank
engine.distributed_timeout_seconds engine.cpu_distributed_timeout_seconds engine.tensor_parallel_size
engine.prefill_context_parallel_size engine.decode_context_parallel_size engine.dcp_kv_cache_interleave_size
engine.cp_kv_cache_interleave_size engine.data_parallel_size engine.data_parallel_rank engine.data_parallel_start_rank
engine.data_parallel_size_local engine.data_parallel_rpc_port engine.elastic_ep_max_dp_size engine.ubatch_size
engine.dbo_decode_token_threshold engine.dp_sync_interval engine.dbo_prefill_token_threshold
engine.max_parallel_loading_workers engine.block_size engine.prefix_cache_retention_interval engine.offload_group_size
engine.offload_num_in_group engine.offload_prefetch_step engine.kv_cache_memory_bytes engine.max_num_batched_tokens
engine.max_num_scheduled_tokens engine.long_prefill_token_threshold engine.max_num_seqs engine.max_num_active_seqs
engine.max_num_queued_reqs engine.max_num_queued_tokens engine.max_logprobs engine.mm_shm_cache_max_object_size_mb
engine.renderer_num_workers engine.max_loras engine.max_cpu_loras engine.max_lora_cls_labels
engine.num_gpu_blocks_override engine.prefill_schedule_interval engine.spec_tokens engine.mamba_block_size
engine.prefix_match_unit engine.replayssm_buffer_len engine.mamba_cache_philox_rounds engine.stream_interval
engine.shutdown_timeout sampling.n sampling.top_k sampling.seed sampling.max_tokens sampling.min_tokens
sampling.logprobs sampling.prompt_logprobs sampling.prompt_logprob_start sampling.stream_interval
sampling.output_text_buffer_length sampling.thinking_token_budget sampling.routed_experts_prompt_start
""",
    "float": """
engine.cpu_offload_gb engine.gpu_memory_utilization engine.mm_processor_cache_gb
engine.mm_encoder_fp8_scale_save_margin engine.video_pruning_rate engine.mm_ipc_gpu_memory_gb engine.watermark
engine.kv_cache_metrics_sample engine.kv_offloading_size sampling.presence_penalty sampling.frequency_penalty
sampling.repetition_penalty sampling.temperature sampling.top_p sampling.min_p
""",
    "bool": """
engine.enable_return_routed_experts engine.return_sampling_mask engine.skip_tokenizer_init engine.enable_prompt_embeds
engine.trust_remote_code engine.numa_bind engine.dcp_q_replicate engine.data_parallel_hybrid_lb
engine.data_parallel_external_lb engine.data_parallel_multi_port_external_lb engine.enable_hc_sp
engine.enable_expert_parallel engine.enable_batch_sharded_sampling engine.enable_ep_weight_filter
engine.enable_elastic_ep engine.enable_dbo engine.disable_nccl_for_dp_synchronization engine.enable_eplb
engine.enable_prefix_caching engine.disable_sliding_window engine.disable_cascade_attn
engine.long_prefill_token_threshold_adaptive engine.use_fp64_gumbel engine.enable_trace_replay engine.disable_log_stats
engine.aggregate_engine_logging engine.allow_deprecated_quantization engine.enforce_eager
engine.disable_custom_all_reduce engine.enable_shm_tensor_arena engine.language_model_only engine.enable_mm_embeds
engine.interleave_mm_strings engine.mm_encoder_only engine.skip_mm_profiling engine.mm_device_do_normalize
engine.enable_lora engine.fully_sharded_loras engine.enable_tower_connector_lora engine.specialize_active_lora
engine.enable_mixed_moe_lora_format engine.enable_moe_shared_loras engine.ray_workers_use_nsight
engine.enable_chunked_prefill engine.disable_chunked_mm_input engine.scheduler_reserve_full_isl
engine.disable_hybrid_kv_cache_manager engine.kv_cache_metrics engine.cudagraph_metrics
engine.enable_layerwise_nvtx_tracing engine.enable_mfu_metrics engine.enable_logging_iteration_details
engine.jit_monitor_verbose engine.enable_mm_processor_stats engine.enable_flashinfer_autotune engine.enable_sleep_mode
engine.sleep_mode_offload_cudagraph engine.enable_cumem_allocator engine.enable_nccl_comm_suspend
engine.enable_mamba_shared_prefix_checkpoint engine.use_replayssm engine.enable_mamba_cache_stochastic_rounding
engine.use_tqdm_on_load engine.async_scheduling engine.kv_sharing_fast_prefill engine.swa_bounded_replay
engine.enable_fault_tolerance engine.tokens_only engine.fail_on_environ_validation sampling.watermarking
sampling.ignore_eos sampling.flat_logprobs sampling.detokenize sampling.skip_special_tokens
sampling.spaces_between_special_tokens sampling.include_stop_str_in_output sampling.skip_clone
sampling.skip_reading_prefix_cache
""",
}
CHOICES = {
    "engine.runner": "auto generate pooling draft",
    "engine.convert": "auto none embed classify",
    "engine.safetensors_load_strategy": "lazy eager prefetch torchao",
    "engine.dtype": "auto half float16 bfloat16 float float32",
    "engine.kv_cache_dtype": """
auto float16 bfloat16 fp8 fp8_e4m3 fp8_e5m2 fp8_inc fp8_ds_mla nvfp4_ds_mla turboquant_k8v4 turboquant_4bit_nc
turboquant_k3v4_nc turboquant_3bit_nc ultraquant_4bit int4_per_token_head int8_per_token_head fp8_per_token_head nvfp4
nvfp4_4over6
""",
    "engine.dcp_comm_backend": "ag_rs a2a",
    "engine.data_parallel_backend": "ray mp",
    "engine.moe_backend": """
auto triton batched_triton deep_gemm deep_gemm_mega_moe cutlass flashinfer_trtllm flashinfer_cutlass flashinfer_cutedsl
flashinfer_moe_ep_cutedsl flashinfer_b12x b12x flashinfer_moe_ep_mega_deep_gemm marlin humming triton_unfused aiter
aiter_mega_moe aiter_triton_mxfp4_bf16 flydsl hpc emulation rdna3
""",
    "engine.linear_backend": """
auto cutlass flashinfer_cutlass flashinfer_cutedsl flashinfer_trtllm flashinfer_cudnn flashinfer_b12x b12x marlin
humming triton deep_gemm torch aiter machete fbgemm conch exllama emulation xpu xpu_woq
""",
    "engine.sparse_indexer_topk_backend": "auto deep_select cooperative persistent per_row flashinfer torch aiter",
    "engine.all2all_backend": """
naive pplx deepep_high_throughput deepep_low_latency deepep_v2 mori_high_throughput mori_low_latency moonep nixl_ep
allgather_reducescatter flashinfer_all2allv flashinfer_nvlink_two_sided flashinfer_nvlink_one_sided passthrough
""",
    "engine.expert_placement_strategy": "linear round_robin",
    "engine.prefix_caching_hash_algo": "sha256 sha256_cbor xxhash xxhash_cbor",
    "engine.logprobs_mode": "raw_logits raw_logprobs processed_logits processed_logprobs",
    "engine.mm_processor_cache_type": "shm lru",
    "engine.mm_hasher_algorithm": "blake3 sha256 sha512",
    "engine.mm_encoder_tp_mode": "weights data",
    "engine.mm_tensor_ipc": "direct_rpc torch_shm",
    "engine.per_request_spec_decode_metrics": "none summary detailed",
    "engine.jit_monitor_mode": "warn error",
    "engine.scheduling_policy": "fcfs priority",
    "engine.log_level": "CRITICAL ERROR WARNING INFO DEBUG NOTSET",
    "engine.mamba_cache_dtype": "auto float32 float16 bfloat16",
    "engine.mamba_ssm_cache_dtype": "auto float32 float16 bfloat16",
    "engine.mamba_cache_mode": "align none",
    "engine.mamba_ssu_algorithm": "auto simple vertical horizontal",
    "engine.performance_mode": "balanced interactivity throughput",
    "engine.kv_offloading_backend": "native lmcache",
    "engine.gdn_prefill_backend": "flashinfer triton cutedsl aiter_flydsl",
    "engine.kda_prefill_backend": "auto triton flashkda flashinfer fused",
    "engine.kda_decode_backend": "auto native flashinfer triton",
}
TABLES = {
    "engine.ir_op_priority": "rms_norm fused_add_rms_norm gelu_and_mul_sparse",
    "engine.eplb_config": """
window_size step_interval num_redundant_experts log_balancedness log_balancedness_interval use_async policy
communicator enable_migration_batching
""",
    "engine.structured_outputs_config": """
backend disable_any_whitespace disable_additional_properties reasoning_parser reasoning_parser_plugin
enable_in_reasoning
""",
    "engine.aux_output_config": "enable_return_routed_experts max_bytes",
    "engine.pooler_config": """
task pooling_type seq_pooling_type tok_pooling_type use_activation enable_flash_late_interaction dimensions
enable_chunked_processing max_embed_len logit_mean logit_sigma step_tag_id returned_token_ids
""",
    "engine.compilation_config": """
mode debug_dump_path cache_dir compile_cache_save_format backend custom_ops ir_enable_torch_wrap splitting_ops
compile_mm_encoder cudagraph_mm_encoder encoder_cudagraph_token_budgets encoder_cudagraph_max_vision_items_per_batch
encoder_cudagraph_max_frames_per_batch cudagraph_decoder_replay decoder_replay_cudagraph_capture_sizes
decoder_replay_trim_threshold compile_sizes compile_ranges_endpoints inductor_compile_config inductor_passes
cudagraph_mode cudagraph_num_of_warmups cudagraph_capture_sizes cudagraph_copy_inputs cudagraph_specialize_lora
use_inductor_graph_partition pass_config max_cudagraph_capture_size dynamic_shapes_config fast_moe_cold_start
""",
    "engine.attention_config": """
backend minimax_m3_msa_decode_backend backend_per_kind flash_attn_version flash_attn_max_num_splits_for_cuda_graph
tokenspeed_mla_min_split_kv tq_max_kv_splits_for_cuda_graph use_trtllm_attention disable_flashinfer_q_quantization
mla_prefill_backend use_prefill_query_quantization indexer_kv_dtype indexer_sparse_logits hisparse_config
use_non_causal sparse_mla_force_mqa sparse_mla_prefill_workspace_factor flex_attn_block_m flex_attn_block_n
flex_attn_q_block_size flex_attn_kv_block_size
""",
    "engine.engram_config": "cpu_offload embedding_across_dp dp_shared_memory use_thp",
    "engine.mamba_config": "backend enable_stochastic_rounding stochastic_rounding_philox_rounds ssu_algorithm",
    "engine.kernel_config": """
ir_op_priority enable_flashinfer_autotune enable_rocm_segmented_attn_autotune enable_cutedsl_warmup enable_jit_warmup
moe_backend sparse_indexer_topk_backend linear_backend linear_backend_per_quant
""",
    "engine.profiler_config": """
profiler torch_profiler_dir torch_profiler_activities proton_profiler_dir proton_context proton_data proton_backend
proton_mode proton_hook proton_output_format proton_graph_attribution torch_profiler_with_stack
torch_profiler_with_flops torch_profiler_use_gzip torch_profiler_dump_cuda_time_total torch_profiler_record_shapes
torch_profiler_with_memory capture_torch_profiler detailed_trace_annotation ignore_frontend delay_iterations
max_iterations warmup_iterations active_iterations wait_iterations
""",
    "engine.logging_config": "log_level formatter configure_logging pylogging_config_file",
    "engine.kv_transfer_config": """
kv_connector engine_id kv_buffer_device kv_role kv_port kv_connector_extra_config kv_connector_module_path
enable_permute_local_kv kv_load_failure_policy
""",
    "engine.kv_events_config": """
enable_kv_cache_events publisher endpoint replay_endpoint buffer_steps hwm max_queue_size topic
""",
    "engine.ec_transfer_config": """
ec_connector engine_id ec_buffer_device ec_buffer_size ec_role ec_ip ec_port ec_connector_extra_config
ec_connector_module_path
""",
    "engine.ec_manager_config": "encoder_cache_manager_cls manager_config",
    "engine.reasoning_config": "reasoning_parser reasoning_start_str reasoning_end_str",
    "engine.fault_tolerance_config": "engine_recovery_timeout_sec",
    "engine.weight_transfer_config": "backend",
    "sampling.structured_outputs": """
json regex choice grammar json_object disable_any_whitespace disable_additional_properties whitespace_pattern
structural_tag
""",
    "sampling.repetition_detection": "max_pattern_size min_pattern_size min_count",
}
