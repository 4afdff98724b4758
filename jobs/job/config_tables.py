"""The tables of job.toml: each key with its type, default, meaning, example and effect, declared once.

Checks, error messages, a job's identity and the JSON Schema are made from these declarations. What [engine], [sampling]
and [slurm] take is declared by vLLM and by sbatch.
"""

from collections.abc import Mapping
from typing import Any, Literal, get_args

from pydantic import Field

from run_batch.jobs.job.config_keys import Effect, Table, key
from run_batch.jobs.job.config_values import (
    CarriedNames,
    Count,
    Examples,
    Hosts,
    LocalPath,
    MediaRootText,
    Memory,
    NonEmpty,
    OutputPath,
    PathTexts,
    ShardRows,
    Tools,
    UploadUrl,
    Workers,
)
from run_batch.jobs.job.errors_table import ErrorsTable

# Result columns that a job has to ask for.
ExtraColumn = Literal["token_ids", "stop_reason", "prompt_logprobs", "timing"]
EXTRA_COLUMNS: tuple[str, ...] = get_args(ExtraColumn)


class InputTable(Table):
    """The rows of the job, and what their columns are."""

    path: PathTexts = key(
        "a file, folder or glob of Parquet, JSON Lines, CSV, Arrow, WebDataset shards or images, or a URL of one; a "
        "list of these; a folder written by datasets.save_to_disk; a Hub id",
        Effect.CONTENT,
        example="rows.parquet",
    )
    format: Literal["parquet", "jsonl", "csv", "arrow", "webdataset", "images", "openai", "hf"] | None = key(
        "parquet, jsonl, csv, arrow, webdataset, images, openai (batch files of its API) or hf; told from names and "
        "contents of the files when left out",
        Effect.CONTENT,
        example="parquet",
        default=None,
    )
    split: str | None = key(
        'split of the input, or parts of splits such as "train[:10%]"; needed where there are several',
        Effect.CONTENT,
        example="validation",
        default=None,
    )
    name: str | None = key(
        "configuration of a data set on the Hub, or in a folder whose README.md declares some",
        Effect.CONTENT,
        example="default",
        default=None,
    )
    image_column: str = key(
        'column of images; "" for a text-only job', Effect.ANOTHER_JOB, example="photo", default="image"
    )
    video_column: str | None = key(
        "column of videos; the input then needs no column of images unless input.image_column names it",
        Effect.ANOTHER_JOB,
        example="video",
        default=None,
    )
    prompt_column: str = key(
        "column of prompts: text, or chat messages", Effect.ANOTHER_JOB, example="question", default="prompt"
    )
    id_column: str | None = key(
        "column of unique row ids; FILE:ROW without it", Effect.ANOTHER_JOB, example="id", default=None
    )
    limit: Count | None = key("only the first N rows", Effect.MAY_GROW, example=1000, default=None)
    media_root: MediaRootText | None = key(
        "folder that image paths are inside of, or its URL in a store of objects; the input's own without it",
        Effect.CONTENT,
        example="/data/images",
        default=None,
    )
    allowed_hosts: Hosts = key(
        "hosts that images may be fetched from by http and https, HOST or HOST:PORT; and buckets: s3://, gs://, az://",
        Effect.FREE,
        example=["images.example.org", "localhost:8000", "s3://photos"],
        default=[],
    )
    allow_private_hosts: bool = key(
        "let input.allowed_hosts lead to private, loopback and other addresses that are not public",
        Effect.FREE,
        example=True,
        default=False,
    )
    sampling_column: str | None = key(
        "column of sampling settings of single rows: struct or JSON text",
        Effect.ANOTHER_JOB,
        example="sampling",
        default=None,
    )
    lora_column: str | None = key(
        "column of the names of single rows' LoRA adapters, which are keys of [lora]; null for none",
        Effect.ANOTHER_JOB,
        example="adapter",
        default=None,
    )
    priority_column: str | None = key(
        "column of whole numbers: of the rows that wait in the engine, those with lower ones run first; null is 0",
        Effect.FREE,
        example="priority",
        default=None,
    )


class PromptTable(Table):
    """The prompt of a row, made of its columns."""

    template: str = key(
        "text with {prompt}, {other_column} and the model's image placeholder; with prompt.chat, the user's message",
        Effect.ANOTHER_JOB,
        example="USER: <image>\n{prompt} ASSISTANT:",
        default="{prompt}",
    )
    chat: bool = key(
        "make conversations of the rows, by the model's chat template", Effect.ANOTHER_JOB, example=True, default=False
    )
    system: str | None = key(
        "system message, with prompt.chat", Effect.ANOTHER_JOB, example="Answer in one word.", default=None
    )
    chat_template: NonEmpty | None = key(
        "file or text of another chat template, or the name of one of the tokenizer's",
        Effect.CONTENT,
        example="{% for message in messages %}{{ message['content'] }}{% endfor %}",
        default=None,
    )
    chat_template_kwargs: dict[str, Any] = key(
        "variables that the chat template reads", Effect.ANOTHER_JOB, example={"enable_thinking": False}, default={}
    )
    prefill: str | None = key(
        "how the answer begins, with {fields}; the result holds what follows it",
        Effect.ANOTHER_JOB,
        example="The image shows",
        default=None,
    )
    tools: Tools = key(
        "tools that the chat template describes to the model: JSON objects, or a JSON file of them",
        Effect.CONTENT,
        example="tools.json",
        default=[],
    )
    examples: Examples = key(
        "turns before the row's own: tables of image (a path, or several), text and answer",
        Effect.CONTENT,
        example=[{"text": "What is 2 + 2?", "answer": "4"}],
        default=[],
    )
    image_marker: NonEmpty | None = key(
        "text in column values that stands for the row's next image",
        Effect.ANOTHER_JOB,
        example="<image>",
        default=None,
    )


class ModelTable(Table):
    """The checkpoint, and the class that runs it."""

    path: LocalPath = key("model folder or Hub id", Effect.CONTENT, example="llava-hf/llava-1.5-7b-hf")
    architecture: str | None = key(
        "name of a registered model class; the checkpoint's own without it",
        Effect.ANOTHER_JOB,
        example="MyModelForConditionalGeneration",
        default=None,
    )
    plugins: list[str] = key(
        "modules that register models, imported in every process",
        Effect.ANOTHER_JOB,
        example=["my_models"],
        default=[],
    )
    lora: LocalPath | None = key(
        "LoRA adapter of all rows, in safetensors: folder or Hub id", Effect.CONTENT, example="adapter", default=None
    )
    trust_remote_code: bool = key(
        "let the checkpoint run Python code of its own", Effect.ANOTHER_JOB, example=True, default=False
    )
    mapper: Literal["auto", "vllm"] = key(
        "auto: the bulk mapper of a model that has one, which gives what vLLM's processor gives, only faster; vllm: "
        "vLLM's own processor",
        Effect.FREE,
        example="vllm",
        default="auto",
    )


class PreprocessTable(Table):
    """The worker processes that decode images and map rows to model inputs."""

    workers: Workers | None = key(
        "worker processes, of all engines of a machine; from the cores that may be used",
        Effect.FREE,
        example=8,
        default=None,
    )
    memory: Memory | None = key(
        "bytes that rows may take on their way, in all stages together; a quarter of what is left on the machine",
        Effect.FREE,
        example="16 GiB",
        default=None,
    )
    scaled_jpeg_decoding: bool = key(
        "decode JPEGs much larger than the model's input at 1/2, 1/4 or 1/8 of their size: faster, not to the last bit",
        Effect.ANOTHER_JOB,
        example=True,
        default=False,
    )


class OutputTable(Table):
    """The folder of results, and what is in its shards."""

    path: OutputPath = key("folder for this job's results", Effect.FREE, example="results")
    rows_per_shard: ShardRows = key("rows of one output shard", Effect.ANOTHER_JOB, example=5000, default=1000)
    columns: CarriedNames = key(
        'input columns to carry over: their names, ["*"] for all, or a table that renames, { column = "new name" }, '
        'with "*" = "*" for all others',
        Effect.ANOTHER_JOB,
        example=["prompt", "answer"],
        default=[],
    )
    compression: Literal["zstd", "snappy", "gzip", "lz4", "brotli", "none"] = key(
        "codec of the shards; zstd, which every reader knows, makes texts a third smaller than snappy, and is as fast",
        Effect.FREE,
        example="snappy",
        default="zstd",
    )
    upload: UploadUrl | None = key(
        "URL that each committed shard is copied to while the job runs, _SUCCESS last",
        Effect.FREE,
        example="s3://bucket/results",
        default=None,
    )
    extra: list[ExtraColumn] = key(
        "more result columns: token_ids, stop_reason, prompt_logprobs, timing",
        Effect.ANOTHER_JOB,
        example=["token_ids", "timing"],
        default=[],
    )


class JobTables(Table):
    """A job.toml of run-batch."""

    input: InputTable
    prompt: PromptTable = Field(default_factory=PromptTable)
    model: ModelTable
    engine: dict[str, Any] = Field({}, description="Fields of vLLM's EngineArgs, checked against vLLM.")
    sampling: dict[str, Any] = Field({}, description="Fields of vLLM's SamplingParams, checked against vLLM.")
    lora: dict[str, Any] = Field({}, description="LoRA adapters by the names in input.lora_column: folders or Hub ids.")
    preprocess: PreprocessTable = Field(default_factory=PreprocessTable)
    output: OutputTable
    errors: ErrorsTable = Field(default_factory=ErrorsTable)
    slurm: dict[str, Any] = Field({}, description="sbatch's long options and a few keys of `run-batch submit`.")


TABLES: Mapping[str, type[Table]] = {
    name: field.annotation
    for name, field in JobTables.model_fields.items()
    if isinstance(field.annotation, type) and issubclass(field.annotation, Table)
}
UNDECLARED_TABLES = tuple(name for name in JobTables.model_fields if name not in TABLES)
