"""Defines the systems of the benchmark and the command that runs each on a workload."""

import json
import os
import sys
from pathlib import Path

from model_settings import LLAVA, ModelSettings
from workloads import FOLDER

HERE = Path(__file__).resolve().parent
PEERS = HERE / "peers"
# A separate environment with Ray and the packages of .venv; `make ray-setup` creates it.
RAY_PYTHON = FOLDER / "ray" / "bin" / "python"
PRODUCT = "run-batch"
# Name -> peer script, and whether its engine runs in the script's process.
SCRIPTS = {
    "script": ("llm_generate.py", False),
    "script-in-process": ("llm_generate.py", True),
    "script-chat": ("llm_chat.py", False),
    "async-tuned": ("async_llm.py", False),
    "vllm-run-batch": ("vllm_run_batch.py", False),
    "ray-data": ("ray_data.py", False),
}
LABELS = {
    PRODUCT: "run-batch",
    "script": "script with LLM.generate",
    "script-in-process": "the same, engine in-process",
    "script-chat": "script with LLM.chat",
    "async-tuned": "script with AsyncLLM, tuned",
    "vllm-run-batch": "vllm run-batch",
    "ray-data": "Ray Data LLM",
}


def command_of(
    system: str, rows: Path, model: Path, folder: Path, settings: ModelSettings = LLAVA
) -> tuple[list[str], dict[str, str]]:
    """Return the command that runs `system`, and its environment; it writes results to `folder`, which must be new."""
    environment = {
        "PYTHONPATH": os.pathsep.join((str(HERE), str(PEERS))),
        "VLLM_LOGGING_LEVEL": "ERROR",
        "HF_HUB_OFFLINE": "1",
    }
    if system == PRODUCT:
        return [sys.executable, str(HERE / "product.py"), str(job_file(rows, model, folder, settings))], environment
    script, in_process = SCRIPTS[system]
    environment["RUN_BATCH_PLUGINS"] = json.dumps({"modules": settings.plugins, "folder": str(PEERS)})
    environment["BENCH_SETTINGS"] = settings.for_peers()
    if in_process:
        environment["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    output = folder / "results"
    python = str(RAY_PYTHON) if script == "ray_data.py" else sys.executable
    return [python, str(PEERS / script), str(rows), str(model), str(output)], environment


def job_file(rows: Path, model: Path, folder: Path, settings: ModelSettings = LLAVA) -> Path:
    """Write a job.toml with the settings that the peers have; return its path."""
    job = folder / "job.toml"
    engine = "\n".join(f"{key} = {toml(value)}" for key, value in settings.engine.items())
    job.write_text(f"""
[input]
path = {json.dumps(str(rows))}
id_column = "id"

[prompt]
template = {json.dumps(settings.prompt)}

[model]
path = {json.dumps(str(model))}
plugins = ["engine_log"]

[engine]
{engine}

[sampling]
temperature = 0.0
max_tokens = {settings.max_tokens}
ignore_eos = true

[output]
path = "out"
""")
    return job


def toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + " }"
    return json.dumps(value)


def shipped_job_file(rows: Path, model: Path, folder: Path, template: str, mapper: str, trusted: bool = False) -> Path:
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
trust_remote_code = {toml(trusted)}

[output]
path = "out"
""")
    return job
