"""`sampling.structured_outputs.json` as the name of a file: the job has the schema in it, as if job.toml held it."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from run_batch.io.transient import retry
from run_batch.jobs.job.errors import JobError

_KEY = "sampling.structured_outputs.json"
_MOST_BYTES = 16 << 20


def with_schema(sampling: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The table `sampling` with the schema itself where it names a file.

    Args:
        folder: of job.toml, which a relative path starts from.

    Raises:
        JobError: the file cannot be read, or holds no JSON object.
    """
    outputs = sampling.get("structured_outputs")
    if not isinstance(outputs, Mapping) or not isinstance(given := outputs.get("json"), str):
        return dict(sampling)
    if given.lstrip()[:1] in ("{", "["):
        schema = _parse(given, f"{_KEY} = {given[:80]!r}")
    else:
        schema = _parse(_read(folder / os.path.expanduser(given), given), f"{_KEY} = {given!r}")
    return {**sampling, "structured_outputs": {**outputs, "json": schema}}


def _read(file: Path, given: str) -> str:
    try:
        with retry(lambda: open(file, "rb")) as opened:
            content = opened.read(_MOST_BYTES + 1)
    except OSError as error:
        raise JobError(f"{_KEY} = {given!r}: {file} cannot be read: {error.strerror}") from error
    if len(content) > _MOST_BYTES:
        raise JobError(f"{_KEY} = {given!r}: {file} is larger than {_MOST_BYTES:,} bytes")
    return content.decode("utf-8", "replace")


def _parse(text: str, shown: str) -> dict[str, Any]:
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise JobError(f"{shown} is not JSON ({error}); expected a JSON Schema: a table, text or a file") from None
    if not isinstance(schema, dict):
        raise JobError(f"{shown}: expected a JSON object, a JSON Schema")
    return schema
