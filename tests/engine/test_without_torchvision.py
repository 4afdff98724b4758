"""Where torchvision is not installed: what does not need it runs, what does is refused by the name of the package."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import transformers
from checkpoints import save_tokenizer

import jobs

pytestmark = pytest.mark.engine

TESTS = jobs.ROOT / "tests"
# The module of the first two imports it; of the third, only the processor, with the first row.
NEEDY = {"Qwen2_5_VL": None, "Gemma3": "check", "SmolVLM": None}
# A process of its own in which torchvision cannot be imported, nor in the one that its commands are forked from.
COMMANDS = """
import json, sys
from pathlib import Path
import jobs
found = [jobs.run(Path(job), *words, command=command) for job, command, words in json.loads(sys.argv[1])]
print(json.dumps([[each.returncode, each.stderr] for each in found]))
"""
Ended = tuple[Path, int, str]


def write_needy(folder: Path, architecture: str) -> Path:
    """A job of a model whose processor is one that needs torchvision."""
    config = getattr(transformers, f"{architecture}Config")(architectures=[f"{architecture}ForConditionalGeneration"])
    config.save_pretrained(folder / "model")
    save_tokenizer(folder / "model")
    for name in ("preprocessor_config.json", "processor_config.json"):
        parts = {"image_processor_type": f"{architecture}ImageProcessor", "processor_class": f"{architecture}Processor"}
        (folder / "model" / name).write_text(json.dumps(parts))
    return jobs.write_job(folder, jobs.rows(3), model={"path": str(folder / "model")})


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Ended]:
    """For the demo and each needy architecture: the job, its exit code, and what it said."""
    folder = tmp_path_factory.mktemp("jobs")
    written = {"demo": jobs.write_job(folder / "demo", jobs.rows(12))}
    written |= {name: write_needy(folder / name, name) for name in NEEDY}
    asked = [(str(job), NEEDY.get(name), [] if NEEDY.get(name) else ["--quiet"]) for name, job in written.items()]
    places = [TESTS / "without_torchvision", TESTS, TESTS / "faults"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, places))}
    words = [sys.executable, "-c", COMMANDS, json.dumps(asked)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=240, cwd=TESTS, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    return {name: (job, *each) for (name, job), each in zip(written.items(), found, strict=True)}


def test_the_demo_runs_without_torchvision(ended: dict[str, Ended]) -> None:
    job, code, said = ended["demo"]
    assert code == 0, said
    assert jobs.results(job)["error"].null_count == 12


@pytest.mark.parametrize("architecture", NEEDY)
def test_a_model_that_needs_a_package_is_refused_by_the_name_of_the_package(
    architecture: str, ended: dict[str, Ended]
) -> None:
    job, code, said = ended[architecture]
    assert code == 2, said
    assert said.startswith("run-batch: ") and said.count("\n") == 1
    assert "the model needs the package torchvision, which is not installed: " in said
    assert "pip install --no-deps 'torchvision==0." in said
    assert not (job.parent / "out").exists()
