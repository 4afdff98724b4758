"""docs/quick-start.md: its commands, one after the other, as a newcomer gives them."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

import jobs

pytestmark = pytest.mark.engine

PAGE = (jobs.ROOT / "docs" / "quick-start.md").read_text()


def commands() -> list[list[str]]:
    """The calls of run-batch in the page's blocks, in order, without the program's name."""
    blocks = re.findall(r"^```bash\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if line.startswith("run-batch ")]
    return [shlex.split(line)[1:] for line in lines]


def call(words: list[str], folder: Path) -> str:
    """What a command says that has to end with 0; those that import vLLM are forked, as in all tests."""
    if "--config" not in words:
        done = subprocess.run([str(jobs.COMMAND), *words], capture_output=True, text=True, cwd=folder)
    else:
        at = words.index("--config")
        command, rest = ("".join(words[:at]) or None), words[at + 2 :]
        # A few rows show what 1,500 do.
        limit = [] if command else ["--set", "input.limit=40"]
        done = jobs.run(folder / words[at + 1], *rest, *limit, command=command)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_its_commands_lead_from_an_input_to_results_that_can_be_looked_at(tmp_path: Path) -> None:
    (tmp_path / "configs").symlink_to(jobs.ROOT / "configs")
    (tmp_path / "first").mkdir()
    said = [call(words, tmp_path) for words in commands()]
    assert len(said) == 6 and said[0].strip() in PAGE
    assert "16 can be mapped, 0 fail" in said[1] and "forecast for 1,500 rows" in said[2]
    assert "40 of 40 rows done, 0 failed" in said[3] and "complete: 40 of 40" in said[4]
    assert (tmp_path / said[5].strip()).read_text().count("<article") == 40
    (python,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    shown = subprocess.run([sys.executable, "-c", python], capture_output=True, text=True, cwd=tmp_path, check=True)
    assert "digit-0011-q0" in shown.stdout
