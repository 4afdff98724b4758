"""Imports what commands and their worker processes import, for the process that they are forked from."""

import gc
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
gc.disable()


gc.collect()
gc.freeze()
gc.enable()
