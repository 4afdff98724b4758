"""The files that a chat job names: its chat template, its tools, the images of its examples."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from run_batch.io.media.image_reader import MAX_BYTES
from run_batch.jobs.job.config import JobConfig
from run_batch.jobs.job.errors import JobError
from run_batch.model.prompts.chat_template import ChatSettings

_MAX_TEXT_BYTES = 16 << 20


def read_chat_settings(config: JobConfig) -> ChatSettings:
    """The chat template, its variables and tools.

    Raises:
        JobError: a file cannot be read, or holds no tools.
    """
    prompt = config.prompt
    return ChatSettings(_template(config), prompt.chat_template_kwargs, _tools(config))


def read_example_images(config: JobConfig) -> list[list[bytes]]:
    """The encoded images of each of prompt.examples.

    Raises:
        JobError: a file cannot be read.
    """
    return [
        [_read(config, "prompt.examples", path, MAX_BYTES) for path in _paths(example)]
        for example in config.prompt.examples
    ]


def chat_content(config: JobConfig) -> Mapping[str, Any]:
    """The content behind the keys that may name files: other content makes it another job.

    Raises:
        JobError: a file cannot be read.
    """
    found: dict[str, Any] = {}
    if config.prompt.chat_template is not None:
        found["prompt.chat_template (its text)"] = _digest([str(_template(config)).encode()])
    if config.prompt.tools:
        found["prompt.tools (their text)"] = _digest([json.dumps(_tools(config)).encode()])
    if config.prompt.examples:
        found["prompt.examples (their texts)"] = [[e["text"], e["answer"]] for e in config.prompt.examples]
        found["prompt.examples (their images)"] = [_digest(images) for images in read_example_images(config)]
    return found


def _digest(contents: list[bytes]) -> str:
    digest = hashlib.sha256()
    for content in contents:
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()


def _paths(example: Mapping[str, Any]) -> list[str]:
    image = example.get("image", [])
    return [image] if isinstance(image, str) else image


def _template(config: JobConfig) -> str | None:
    """The text of prompt.chat_template; a single word that names no file is the name of one of the tokenizer's."""
    given = config.prompt.chat_template
    if given is None or any(character in given for character in "{}\n"):
        return given
    if given.isidentifier() and not _local(config, given).exists():
        return given
    try:
        return _read(config, "prompt.chat_template", given, _MAX_TEXT_BYTES).decode()
    except UnicodeDecodeError:
        raise JobError(f"prompt.chat_template {given}: the file is not UTF-8 text") from None


def _tools(config: JobConfig) -> list[dict[str, Any]]:
    given = config.prompt.tools
    if isinstance(given, list):
        return given
    try:
        tools = json.loads(_read(config, "prompt.tools", given, _MAX_TEXT_BYTES))
    except (ValueError, RecursionError) as error:
        raise JobError(f"prompt.tools {given}: not JSON: {error}") from None
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise JobError(f"prompt.tools {given}: expected a list of JSON objects")
    return tools


def _local(config: JobConfig, path: str) -> Path:
    return config.folder / os.path.expanduser(path)


def _read(config: JobConfig, key: str, path: str, most: int) -> bytes:
    try:
        with open(_local(config, path), "rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise JobError(f"{key}: {path} cannot be read: {error.strerror}") from error
    if len(content) > most:
        raise JobError(f"{key}: {path} is larger than {most:,} bytes")
    return content
