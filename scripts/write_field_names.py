"""Writes model/checkpoint/vllm_field_names.py: the names of the fields of the installed vLLM's settings."""

import textwrap
from pathlib import Path

import vllm

from run_batch.model.checkpoint.vllm_fields import vllm_fields

FILE = Path(__file__).resolve().parents[1] / "model" / "checkpoint" / "vllm_field_names.py"


def source() -> str:
    """The text of the file."""
    names = {table: " ".join(name for name, _, _ in vllm_fields(table)) for table in ("engine", "sampling")}
    lists = [f'{table.upper()} = """\n{textwrap.fill(text, 119)}\n"""' for table, text in names.items()]
    head = [
        '"""The names of the fields of EngineArgs (ENGINE) and SamplingParams (SAMPLING) of one version of vLLM.',
        "",
        "Written by scripts/write_field_names.py. Importing vLLM to find a mistyped name takes seconds.",
        '"""',
        "",
        f'VERSION = "{vllm.__version__}"',
    ]
    return "\n".join([*head, *lists]) + "\n"


if __name__ == "__main__":
    FILE.write_text(source())
