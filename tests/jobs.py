"""Jobs for the end-to-end tests: the demo's model on rows of the tests' own, through the command line."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import forked_commands
import pyarrow as pa
import pyarrow.parquet as pq
from pictures import encoded, picture

ROOT = Path(__file__).resolve().parent.parent
COMMAND = Path(sys.executable).parent / "run-batch"
QUESTIONS = ("which digit is this?", "is it even?", "is it above four?")
TABLES: Mapping[str, Mapping[str, Any]] = {
    "input": {"path": "rows.parquet", "id_column": "uid"},
    "prompt": {"template": "USER: <image>\n{prompt} ASSISTANT:"},
    "model": {"path": str(ROOT / "configs" / "demo" / "model")},
    "engine": {
        "dtype": "float32",
        "max_model_len": 256,
        "max_num_seqs": 32,
        "enforce_eager": True,
        "kv_cache_memory_bytes": 1 << 27,
    },
    "sampling": {"temperature": 0.0, "max_tokens": 8},
    "output": {"path": "out", "rows_per_shard": 50},
}


def rows(count: int) -> dict[str, list[Any]]:
    """Rows whose answers differ: small pictures of every kind, three questions."""
    return {
        "uid": [f"u{i:05d}" for i in range(count)],
        "image": [encoded(picture(i, (20 + i % 90, 20 + i % 70)), "PNG" if i % 2 else "JPEG") for i in range(count)],
        "prompt": [QUESTIONS[i % 3] for i in range(count)],
    }


def write_job(folder: Path, columns: Mapping[str, Any] | pa.Table | None, **tables: Mapping[str, Any]) -> Path:
    """A job.toml in `folder`, with its rows beside it; `tables` override single keys, None takes a key out."""
    folder.mkdir(parents=True, exist_ok=True)
    if columns is not None:
        table = columns if isinstance(columns, pa.Table) else pa.table(columns)
        pq.write_table(table, folder / "rows.parquet", row_group_size=64)
    lines = []
    for name in {**TABLES, **tables}:
        lines.append(f"[{name}]")
        keys = {**TABLES.get(name, {}), **tables.get(name, {})}
        lines += [f"{key} = {_toml(value)}" for key, value in keys.items() if value is not None]
    path = folder / "job.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def _toml(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return json.dumps(value)


def run(
    job: Path, *arguments: str, command: str | None = None, forked: bool = True
) -> subprocess.CompletedProcess[str]:
    """`run-batch [command] --config job [arguments]`, from another folder than the job's.

    Args:
        forked: a command that imports vLLM is a fork of a process that has; see forked_commands. Not for tests of how a
            command starts.
    """
    words = [*([command] if command else []), "--config", str(job), *arguments]
    # Nothing here may need a hub, and what asks for one shall be told at once that there is none.
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    if forked and command in (None, "check", "try", "submit"):
        with tempfile.TemporaryDirectory() as folder:
            return forked_commands.Command(words, environment, Path(folder)).finish(timeout=240)
    return subprocess.run([str(COMMAND), *words], capture_output=True, text=True, timeout=240, cwd="/", env=environment)


def succeed(job: Path, *arguments: str, forked: bool = True) -> pa.Table:
    """Run a job that ends with exit code 0, and give back its results."""
    finished = run(job, *arguments, forked=forked)
    assert finished.returncode == 0, finished.stderr
    return results(job)


def start(job: Path) -> forked_commands.Command:
    """Start a job; what it says is beside it."""
    return forked_commands.Command(["--config", str(job)], {**os.environ, "HF_HUB_OFFLINE": "1"}, job.parent)


def wait_for_shards(job: Path, count: int, process: "subprocess.Popen[bytes] | forked_commands.Command") -> None:
    deadline = time.monotonic() + 120
    while len(shards(job)) < count:
        assert process.poll() is None and time.monotonic() < deadline, "the job ended before it could be stopped"
        time.sleep(0.005)


def shards(job: Path) -> list[Path]:
    return sorted((job.parent / "out").glob("part-*.parquet"))


def results(job: Path) -> pa.Table:
    return pa.concat_tables([pq.read_table(path) for path in shards(job)])
