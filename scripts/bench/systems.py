"""Defines the systems of the benchmark and the command that runs each on a workload."""

import json
import os
import sys
from pathlib import Path

from workloads import FOLDER, PROMPT

HERE = Path(__file__).resolve().parent
PEERS = HERE / "peers"
# A separate environment with Ray and the packages of .venv; `make ray-setup` creates it.
RAY_PYTHON = FOLDER / "ray" / "bin" / "python"
PRODUCT = "run-batch"
# Name -> peer script, and whether its engine runs in the script's process.
SCRIPTS = {
    "script": ("llm_generate.py", False),
    "script-in-process": ("llm_generate.py", True),
    "async-tuned": ("async_llm.py", False),
    "vllm-run-batch": ("vllm_run_batch.py", False),
    "ray-data": ("ray_data.py", False),
}
LABELS = {
    PRODUCT: "run-batch",
    "script": "script with LLM.generate",
    "script-in-process": "the same, engine in-process",
    "async-tuned": "script with AsyncLLM, tuned",
    "vllm-run-batch": "vllm run-batch",
    "ray-data": "Ray Data LLM",
}


def command_of(system: str, rows: Path, model: Path, folder: Path) -> tuple[list[str], dict[str, str]]:
    """Return the command that runs `system`, and its environment; it writes results to `folder`, which must be new."""
    environment = {
        "PYTHONPATH": os.pathsep.join((str(HERE), str(PEERS))),
        "VLLM_LOGGING_LEVEL": "ERROR",
        "HF_HUB_OFFLINE": "1",
    }
    if system == PRODUCT:
        return [sys.executable, str(HERE / "product.py"), str(job_file(rows, model, folder))], environment
    script, in_process = SCRIPTS[system]
    environment["RUN_BATCH_PLUGINS"] = json.dumps({"modules": ["stock_llava", "engine_log"], "folder": str(PEERS)})
    if in_process:
        environment["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    output = folder / "results"
    python = str(RAY_PYTHON) if script == "ray_data.py" else sys.executable
    return [python, str(PEERS / script), str(rows), str(model), str(output), PROMPT], environment


def job_file(rows: Path, model: Path, folder: Path) -> Path:
    """Write a job.toml with the same settings as peers/common.py; return its path."""
    job = folder / "job.toml"
    job.write_text(f"""
[input]
path = {json.dumps(str(rows))}
id_column = "id"

[prompt]
template = {json.dumps(PROMPT)}

[model]
path = {json.dumps(str(model))}
plugins = ["engine_log"]

[engine]
dtype = "float32"
max_model_len = 256
max_num_seqs = 64
enforce_eager = true
kv_cache_memory_bytes = 134217728

[sampling]
temperature = 0.0
max_tokens = 16
ignore_eos = true

[output]
path = "out"
""")
    return job


def shipped_job_file(rows: Path, model: Path, folder: Path, template: str, mapper: str) -> Path:
    """Write a job.toml for a model that vLLM ships, with the checkpoint's own settings; return its path."""
    job = folder / f"{mapper}.toml"
    job.write_text(f"""
[input]
path = {json.dumps(str(rows))}
id_column = "id"

[prompt]
template = {json.dumps(template)}

[model]
path = {json.dumps(str(model))}
mapper = "{mapper}"

[output]
path = "out"
""")
    return job
