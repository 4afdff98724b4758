"""Imports what commands and their worker processes import, for the process that they are forked from."""

import gc
import importlib
import os

# As commands set it before they import anything, and read while libraries are imported.
os.environ.update(
    GOMP_SPINCOUNT="4000",
    VLLM_LOGGING_LEVEL="ERROR",
    TORCH_CPP_LOG_LEVEL="ERROR",
    TORCH_LOGS="-torch._library",
    TRANSFORMERS_VERBOSITY="error",
    HF_HUB_OFFLINE="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
)
MODULES = (
    "compressed_tensors",
    "transformers.models.llava.configuration_llava",
    "vllm.model_executor.layers.quantization.online",
    "vllm.model_executor.model_loader",
    "vllm.renderers.hf",
    "vllm.v1.attention.backends.cpu_attn",
    "vllm.v1.engine.coordinator",
    "vllm.v1.engine.core",
    "vllm.v1.engine.llm_engine",
    "vllm.v1.executor.multiproc_executor",
    "vllm.v1.worker.cpu_worker",
    "run_batch.jobs.check",
    "run_batch.jobs.cli",
    "run_batch.jobs.mapping.row_mapper",
    "run_batch.jobs.runner.run_job",
    "run_batch.jobs.trial.try_job",
    "run_batch.model.families.llava",
    "run_batch.model.families.llava_next",
)

gc.disable()
for name in MODULES:
    importlib.import_module(name)
gc.collect()
gc.freeze()
gc.enable()
