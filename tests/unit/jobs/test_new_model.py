"""`run-batch new-model`: the files that it writes, and the names and folders that it refuses."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

import jobs
from run_batch.jobs.job.errors import JobError, RunError
from run_batch.jobs.new_model import new_model as command
from run_batch.jobs.new_model.new_model import new_model


@pytest.fixture(autouse=True)
def _no_vllm(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Importing vLLM takes seconds; one test has it."""
    if "model_type" not in request.node.name:
        monkeypatch.setattr(command, "_check_model_type", lambda name: None)


@pytest.mark.parametrize(
    ("name", "module", "model_class"),
    [
        ("night_owl", "night_owl", "NightOwlForConditionalGeneration"),
        ("Owl2", "Owl2", "Owl2ForConditionalGeneration"),
        ("xMyModel", "xMyModel", "XMyModelForConditionalGeneration"),
    ],
)
def test_module_class_job_and_test_are_called_by_the_name(
    name: str, module: str, model_class: str, tmp_path: Path
) -> None:
    files = new_model(name, tmp_path / "deep" / "folder")
    assert [file.name for file in files] == [f"{module}.py", "job.toml", "make_tiny.py", f"test_{module}.py"]
    assert sorted((tmp_path / "deep" / "folder").iterdir()) == sorted(files)
    classes = [node.name for node in ast.parse(files[0].read_text()).body if isinstance(node, ast.ClassDef)]
    assert classes[-1] == model_class
    assert f'plugins = ["{module}"]' in files[1].read_text() and f"import {module}\n" in files[3].read_text()


def test_the_guide_shows_what_is_written(tmp_path: Path) -> None:
    guide = (jobs.ROOT / "docs" / "custom-models.md").read_text().partition("## 6. A skeleton")[2]
    blocks = re.findall(r"```(?:python|toml)\n(.*?)```", guide, re.DOTALL)
    module, job, _, test = (file.read_text() for file in new_model("my_model", tmp_path / "my_model"))
    assert blocks[:2] == [module, job] and len(blocks) == 3 and test.endswith(f"\n\n\n{blocks[2]}")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "'' cannot name a Python module: write letters"),
        ("2x", "'2x' cannot name a Python module: write letters"),
        ("my-owl", "'my-owl' cannot name a Python module: write letters"),
        ("a.b", "'a.b' cannot name a Python module: write letters"),
        ("../owl", "'../owl' cannot name a Python module: write letters"),
        ("owl\n", r"'owl\\n' cannot name a Python module: write letters"),
        ("ﬁle", "'ﬁle' cannot name a Python module: write letters"),
        ("class", "class means something else to Python"),
        ("match", "match means something else to Python"),
        ("json", "there is a module json already"),
        ("pytest", "there is a module pytest already"),
        ("config", "config would clash with other names in the files"),
        ("auto", "auto would clash with other names in the files"),
        ("list", "list would clash with other names in the files"),
        ("make_tiny", "make_tiny would clash with other names in the files"),
        ("conftest", "conftest means something else to Python or pytest"),
    ],
)
def test_a_name_that_no_module_can_have_is_refused(name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=said):
        new_model(name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "known"), [("llava", "llava"), ("BLIP_2", "blip-2"), ("ovis", "ovis")])
def test_a_model_type_that_transformers_or_vllm_knows_is_refused(name: str, known: str, tmp_path: Path) -> None:
    with pytest.raises(JobError, match=f"^{known} is a model type that transformers or vLLM knows; .* my_{name}$"):
        new_model(name, tmp_path / "out")


@pytest.mark.parametrize("kind", ["folder", "file", "dangling link"])
def test_what_is_there_is_kept(kind: str, tmp_path: Path) -> None:
    there = tmp_path / "owl"
    {"folder": there.mkdir, "file": there.touch, "dangling link": lambda: there.symlink_to("nowhere")}[kind]()
    with pytest.raises(JobError, match="owl is there already; name another folder with --output"):
        new_model("owl", there)
    assert there.is_symlink() or (there.is_file() or not list(there.iterdir()))


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="file/owl cannot be written: Not a directory"):
        new_model("owl", tmp_path / "file" / "owl")


def test_the_command_writes_into_a_folder_of_the_name_and_says_what_is_next(tmp_path: Path) -> None:
    words = [str(jobs.COMMAND), "new-model", "night_owl"]
    made = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    files = "night_owl.py, job.toml, make_tiny.py, test_night_owl.py"
    assert made.stdout == f"night_owl: {files}; next: python -m pytest night_owl/test_night_owl.py\n"
    again = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == 2 and again.stderr.startswith("run-batch: night_owl is there already; ")
