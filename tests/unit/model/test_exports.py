"""run_batch.model has all that the authors of models import."""

import re
from pathlib import Path

import pytest

import run_batch.model

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("name", run_batch.model.__all__)
def test_every_exported_name_can_be_imported(name: str) -> None:
    assert getattr(run_batch.model, name) is not None


def test_a_name_that_is_not_exported_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'NoSuchName'"):
        run_batch.model.NoSuchName  # noqa: B018


@pytest.mark.parametrize("file", ["docs/custom-models.md", "configs/custom/patch_reader.py"])
def test_authors_are_told_no_deeper_path(file: str) -> None:
    text = (ROOT / file).read_text()
    assert "run_batch.model" in text
    inner = {path.stem for path in (ROOT / "model").iterdir()}
    assert not inner & set(re.findall(r"run_batch\.model\.(\w+)", text))


@pytest.mark.parametrize("link", re.findall(r"\]\((\.\./[^)]+)\)", (ROOT / "docs/custom-models.md").read_text()))
def test_the_files_that_the_guide_names_exist(link: str) -> None:
    assert (ROOT / "docs" / link).exists()
