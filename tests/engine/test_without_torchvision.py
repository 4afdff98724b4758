"""Where torchvision is not installed: what does not need it runs, what does is refused by the name of the package."""

import json
from pathlib import Path

import pytest
import transformers
from checkpoints import save_tokenizer

import jobs

pytestmark = pytest.mark.engine


def test_the_demo_runs_without_torchvision(tmp_path: Path) -> None:
    job = jobs.write_job(tmp_path, jobs.rows(12))
    finished = jobs.run(job, without_torchvision=True)
    assert finished.returncode == 0, finished.stderr
    assert jobs.results(job)["error"].null_count == 12


@pytest.mark.parametrize(
    ("architecture", "command"),
    [("Qwen2_5_VL", None), ("Gemma3", "check"), ("SmolVLM", None)],
)
def test_a_model_that_needs_a_package_is_refused_by_the_name_of_the_package(
    architecture: str, command: str | None, tmp_path: Path
) -> None:
    """The module of the first two imports it; of the third, only the processor, with the first row."""
    config = getattr(transformers, f"{architecture}Config")(architectures=[f"{architecture}ForConditionalGeneration"])
    config.save_pretrained(tmp_path / "model")
    save_tokenizer(tmp_path / "model")
    for name in ("preprocessor_config.json", "processor_config.json"):
        parts = {"image_processor_type": f"{architecture}ImageProcessor", "processor_class": f"{architecture}Processor"}
        (tmp_path / "model" / name).write_text(json.dumps(parts))
    job = jobs.write_job(tmp_path, jobs.rows(3), model={"path": str(tmp_path / "model")})
    quiet = ["--quiet"] if command is None else []
    finished = jobs.run(job, *quiet, command=command, without_torchvision=True)
    assert finished.returncode == 2, finished.stderr
    assert finished.stderr.startswith("run-batch: ") and finished.stderr.count("\n") == 1
    assert "the model needs the package torchvision, which is not installed: " in finished.stderr
    assert "pip install --no-deps 'torchvision==0." in finished.stderr
    assert not (tmp_path / "out").exists()
