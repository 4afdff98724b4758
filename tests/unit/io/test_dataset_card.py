"""Configurations that the README.md of an input folder declares, as `datasets.load_dataset` reads them."""

from pathlib import Path

import datasets
import pytest
from numbered_files import numbers, write

from run_batch.io.inputs.huggingface import HfSource
from run_batch.io.inputs.parquet import ParquetSource
from run_batch.io.inputs.source import InputError

CARD = """---
license: mit
configs:
- config_name: en
  data_files:
  - {split: easy, path: "en/easy*"}
  - split: hard
    path: ["en/hard/**", "en/more/?.parquet"]
- config_name: fr
  data_files: "fr/**/*.parquet"
- config_name: in-folder
  data_dir: names
  data_files: t*n.parquet
- config_name: by-name
  data_dir: names
---
# A data set
"""
CARD_FILES = [
    *("en/easy-1.parquet", "en/hard/deep/a.parquet", "en/more/b.parquet", "en/more/bb.parquet", "fr/x/y.parquet"),
    *("en/easy/deep.parquet", "names/train.parquet", "names/test.parquet", "elsewhere.parquet"),
]


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("en", "easy"),
        ("en", "hard"),
        ("fr", "train"),
        ("in-folder", "train"),
        ("by-name", "train"),
        ("by-name", "test"),
    ],
)
def test_the_configurations_of_a_readme_are_those_of_datasets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, split: str
) -> None:
    write(tmp_path / "in", CARD_FILES)
    (tmp_path / "in" / "README.md").write_text(CARD)
    expected = datasets.load_dataset(str(tmp_path / "in"), name, split=split, cache_dir=str(tmp_path / "cache"))["n"]
    source = ParquetSource(str(tmp_path / "in"), split=split, name=name)
    assert sorted(numbers(source)) == sorted(expected)
    assert ParquetSource(str(tmp_path / "in"), source.index, split, name).row_names(0, 1) == source.row_names(0, 1)
    assert ParquetSource(f"file://{tmp_path}/in", split=split, name=name).num_rows == source.num_rows


def test_a_configuration_is_named_where_a_readme_declares_several(tmp_path: Path) -> None:
    write(tmp_path, CARD_FILES)
    readme = tmp_path / "README.md"
    readme.write_text(CARD)
    with pytest.raises(
        InputError, match=r"input\.name is not set, but README\.md declares .* en, fr, in-folder, by-name; set it"
    ):
        ParquetSource(str(tmp_path))
    with pytest.raises(
        InputError, match=r"input\.name 'de': README\.md declares the configurations en, fr, in-folder, by-name"
    ):
        ParquetSource(str(tmp_path), name="de")
    with pytest.raises(InputError, match=r"the splits easy \(1 file\), hard \(2 files\); set it"):
        ParquetSource(str(tmp_path), name="en")
    assert ParquetSource(str(tmp_path), name="fr").num_rows == 10
    readme.write_text(CARD.replace("- config_name: fr", "- config_name: fr\n  default: true"))
    assert ParquetSource(str(tmp_path)).row_names(0, 1) == ["fr/x/y.parquet:0"]
    assert ParquetSource(str(tmp_path / "en" / "*" / "*.parquet")).num_rows == 30, "a glob names the files itself"
    readme.write_text(CARD.replace("fr/**", "de/**"))
    with pytest.raises(InputError, match=r"no file is in configuration 'fr'"):
        ParquetSource(str(tmp_path), name="fr")
    for broken in (
        "configs: [",
        "configs: 5",
        "configs: [{a: b}]",
        "configs: [a]",
        "configs: [{config_name: a, data_files: [{path: b}]}]",
    ):
        readme.write_text(f"---\n{broken}\n---\n")
        with pytest.raises(InputError, match=r"the configs in README\.md cannot be understood"):
            ParquetSource(str(tmp_path))


def test_a_readme_without_configurations_changes_nothing(tmp_path: Path) -> None:
    write(tmp_path / "in", ["a.parquet", "sub/b.parquet", "trained.parquet", "latest.parquet", "contest/c.parquet"])
    for text in ("# configs:", "---\nlicense: mit\n---\n", "---\nconfigs:\n---\n", "---\nno end\nconfigs: [a]"):
        (tmp_path / "in" / "README.md").write_text(text)
        assert ParquetSource(str(tmp_path / "in")).num_rows == 50
        with pytest.raises(InputError, match=r"input\.name 'en': input\.path has no configurations"):
            ParquetSource(str(tmp_path / "in"), name="en")
    datasets.Dataset.from_dict({"n": [1]}).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(InputError, match=r"input\.name 'en': input\.path has no configurations"):
        HfSource(str(tmp_path / "saved"), None, "en")
