"""The tables of job.toml: every key with its type, default and meaning, declared once."""

from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field
from typing import Any

from run_batch.io.media.allowed_hosts import is_host_entry


def key(
    meaning: str,
    default: Any = MISSING,
    *,
    result: bool = True,
    check: Callable[[Any], str | None] | None = None,
) -> Any:
    """Declare one key of a table.

    Args:
        meaning: one line for people.
        default: value where job.toml does not name the key; without one the key is required.
        result: whether another value can give other results, and so makes it another job.
        check: gives what is accepted, for a value of the right type that is not; else None.
    """
    metadata = {"meaning": meaning, "result": result, "check": check}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def at_least(low: int) -> Callable[[Any], str | None]:
    return lambda value: None if value >= low else f"a number from {low} on"


def _path(value: str) -> str | None:
    if not value or "\0" in value:
        return "a path, neither empty nor with a NUL character"
    parts = [] if "://" in value else value.encode().split(b"/")
    if len(value) > 4000 or any(len(part) > 255 for part in parts):
        return "a path that a file system can take: 255 bytes a name, 4000 characters in all"
    return None


def _hosts(values: list[str]) -> str | None:
    return None if all(map(is_host_entry, values)) else 'host names such as "images.example.org" or "localhost:8000"'


def one_of(*accepted: str) -> Callable[[Any], str | None]:
    return lambda value: None if value in accepted else " or ".join(map(repr, accepted))


@dataclass(frozen=True, slots=True)
class InputTable:
    path: str = key(
        "a Parquet file, folder or glob, a folder written by datasets.save_to_disk, a Hub id, or a URL", check=_path
    )
    format: str | None = key("parquet or hf; inferred when left out", None, check=one_of("parquet", "hf"))
    split: str = key("split of a Hugging Face data set", "train")
    name: str | None = key("configuration of a data set on the Hub", None)
    image_column: str = key('column of images; "" for a text-only job', "image")
    prompt_column: str = key("column of prompts: text, or chat messages", "prompt")
    id_column: str | None = key("column of unique row ids; FILE:ROW without it", None)
    limit: int | None = key("only the first N rows", None, check=at_least(1))
    media_root: str | None = key("folder that image paths are inside of; the input's own without it", None, check=_path)
    allowed_hosts: list[str] = key(
        "hosts that images may be fetched from by http and https: HOST or HOST:PORT", [], result=False, check=_hosts
    )
    allow_private_hosts: bool = key(
        "let input.allowed_hosts lead to private, loopback and other addresses that are not public", False, result=False
    )
    sampling_column: str | None = key("column of sampling settings of single rows: struct or JSON text", None)


@dataclass(frozen=True, slots=True)
class PromptTable:
    template: str = key("text with {prompt}, {other_column} and the model's image placeholder", "{prompt}")
    chat: bool = key("use the tokenizer's chat template instead of prompt.template", False)
    system: str | None = key("system message, with prompt.chat", None)


@dataclass(frozen=True, slots=True)
class ModelTable:
    path: str = key("model folder or Hub id", check=_path)
    architecture: str | None = key("name of a registered model class; the checkpoint's own without it", None)
    plugins: list[str] = key("modules that register models, imported in every process", [])
    trust_remote_code: bool = key("let the checkpoint run Python code of its own", False)


@dataclass(frozen=True, slots=True)
class PreprocessTable:
    workers: int | None = key(
        "worker processes; from the cores this process may use", None, result=False, check=at_least(1)
    )
    scaled_jpeg_decoding: bool = key(
        "decode JPEGs much larger than the model's input at 1/2, 1/4 or 1/8 of their size: faster, not to the last bit",
        False,
    )


@dataclass(frozen=True, slots=True)
class OutputTable:
    path: str = key("folder for this job's results", result=False, check=_path)
    rows_per_shard: int = key("rows of one output shard", 1000, check=at_least(1))
    columns: list[str] = key("input columns to carry over", [])


@dataclass(frozen=True, slots=True)
class ErrorsTable:
    max_fraction: float = key(
        "share of failed rows above which the job ends with exit code 3",
        0.1,
        result=False,
        check=lambda value: None if 0 <= value <= 1 else "a number from 0 to 1",
    )
    step_seconds: float = key(
        "an engine whose step takes longer counts as dead; 0 for no limit", 600.0, result=False, check=at_least(0)
    )
    expected_column: str | None = key("column with the text expected of each row; other texts count as failed", None)


TABLES: Mapping[str, type] = {
    "input": InputTable,
    "prompt": PromptTable,
    "model": ModelTable,
    "preprocess": PreprocessTable,
    "output": OutputTable,
    "errors": ErrorsTable,
}
FREE_TABLES = ("engine", "sampling", "slurm")

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
}
