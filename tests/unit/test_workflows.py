"""The Dockerfile and the workflows, as their own linters read them."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOWS = [ROOT / ".github" / "workflows" / "ci.yml", ROOT / "configs" / "github" / "smoke.yml"]


def lint(program: str, *arguments: str) -> None:
    """Run a linter of `make docs`; the test is skipped where it is not installed."""
    found = shutil.which(program, path=ROOT / ".bench" / "docs" / "bin")
    if found is None:
        pytest.skip(f"{program} is not installed; `make docs` installs it")
    done = subprocess.run([found, *arguments], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dockerfile_passes_its_linter() -> None:
    lint("hadolint", "Dockerfile")


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_fits_the_schema_of_github(workflow: Path) -> None:
    lint("check-jsonschema", "--builtin-schema", "vendor.github-workflows", str(workflow))


def steps(workflow: Path) -> list[str]:
    jobs = yaml.safe_load(workflow.read_text())["jobs"]
    return [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]


def test_the_projects_own_workflow_runs_what_ci_runs_on_each_python_that_is_supported() -> None:
    assert any(".ci/run" in step for step in steps(WORKFLOWS[0]))
    versions = yaml.safe_load(WORKFLOWS[0].read_text())["jobs"]["tests"]["strategy"]["matrix"]["python"]
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    assert versions == [found for line in classifiers for found in re.findall(r"Python :: (3\.\d+)$", line)]


def test_the_workflow_for_users_names_a_job_that_is_there() -> None:
    named = {path for step in steps(WORKFLOWS[1]) for path in re.findall(r"--config (\S+)", step)}
    assert named and all((ROOT / path).is_file() for path in named)


def test_the_image_installs_what_pyproject_pins() -> None:
    text = (ROOT / "Dockerfile").read_text()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(re.findall(r"\[([\w,]+)\]", text)[-1].split(",")) <= extras.keys()
    copied = {word for line in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE) for word in line.split()}
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {"pyproject.toml", "jobs", "model", "io"} <= {word.rstrip("/") for word in copied}
    assert all((ROOT / word).exists() and f"!{word.rstrip('/')}" in ignored for word in copied)
