"""Which rows `input.split` stands for, in folders of Parquet files and in data sets of Hugging Face."""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import datasets
import pytest
from datasets.data_files import DataFilesDict, get_data_patterns
from numbered_files import numbers, write

from run_batch.io.inputs.huggingface import HfSource
from run_batch.io.inputs.parquet import ParquetSource
from run_batch.io.inputs.source import InputError, Source
from run_batch.io.inputs.splits import splits_of

LAYOUTS: Mapping[str, Sequence[str]] = {
    "hub": [
        "data/train-00000-of-00002.parquet",
        "data/train-00001-of-00002.parquet",
        "data/test-00000-of-00001.parquet",
    ],
    "hub, own names": ["data/testmini-00000-of-00001-8f2a.parquet", "data/part.1-00000-of-00001.parquet"],
    "converted": ["default/train/0000.parquet", "default/train/0001.parquet", "default/validation/0000.parquet"],
    "configurations": ["en/train-00000-of-00001.parquet", "en/test-00000-of-00001.parquet"],
    "file names": ["train.parquet", "dev.parquet", "my_eval.v2.parquet"],
    "folder names": ["training/a.parquet", "data-val/b.parquet", "2024 test/c.parquet"],
    "folders before files": ["train/test.parquet", "testing/train.parquet"],
    "mixed": ["train.parquet", "extra.parquet", "test.parquet"],
    "in both": ["train/test/a.parquet", "train/b.parquet"],
    "none": ["a.parquet", "sub/b.parquet", "trained.parquet", "latest.parquet", "contest/c.parquet"],
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_files_are_of_the_splits_that_datasets_finds(tmp_path: Path, layout: str) -> None:
    names = LAYOUTS[layout]
    write(tmp_path, names)
    patterns = get_data_patterns(str(tmp_path))
    files = DataFilesDict.from_patterns(patterns, base_path=str(tmp_path), allowed_extensions=[".parquet"])
    expected = {str(s): sorted(str(Path(f).relative_to(tmp_path)) for f in found) for s, found in files.items()}
    found = {split: sorted(names[i] for i in indices) for split, indices in splits_of(names, "x").items()}
    assert found == ({} if layout == "none" else expected)
    assert list(found) == ([] if layout == "none" else list(expected))


@pytest.mark.parametrize("glob", ["", "**/*.parquet"])
def test_the_split_that_a_job_names_is_read_and_no_other(tmp_path: Path, glob: str) -> None:
    write(tmp_path, LAYOUTS["hub"])
    for split, expected in {
        "train": range(20),
        "test": range(20, 30),
        "test+train": [*range(20, 30), *range(20)],
    }.items():
        source = ParquetSource(str(tmp_path / glob), split=split)
        assert numbers(source) == list(expected)
        again = ParquetSource(str(tmp_path / glob), source.index, split)
        assert (again.row_names(0, 30), again.num_rows) == (source.row_names(0, 30), source.num_rows)
    assert ParquetSource(str(tmp_path), split="test").row_names(0, 1) == ["data/test-00000-of-00001.parquet:0"]
    assert ParquetSource(str(tmp_path), split="all").num_rows == 30
    with pytest.raises(InputError, match=r"input\.split 'dev': input\.path has the splits train, test"):
        ParquetSource(str(tmp_path), split="dev")


def test_several_splits_without_a_name_are_refused_and_listed(tmp_path: Path) -> None:
    write(tmp_path / "hub", LAYOUTS["hub"])
    for path in ("hub", "hub/data", "hub/**/*.parquet", "hub/data/t*"):
        with pytest.raises(InputError) as caught:
            ParquetSource(str(tmp_path / path))
        assert str(caught.value) == (
            "input.split is not set, but input.path holds the splits train (2 files), test (1 file); "
            'set it: "train", "train+test", or "all"'
        )
    write(tmp_path / "mixed", LAYOUTS["mixed"])
    with pytest.raises(
        InputError, match=r"train \(1 file\), test \(1 file\), and 1 of no split, such as extra\.parquet; "
    ):
        ParquetSource(str(tmp_path / "mixed"))
    write(tmp_path / "own" / "data", ["easy-00000-of-00001.parquet", "hard-00000-of-00001.parquet"])
    for path in ("own", "own/data"):
        with pytest.raises(InputError, match=r"the splits easy \(1 file\), hard \(1 file\)"):
            ParquetSource(str(tmp_path / path))
    write(tmp_path / "upper", ["Train/a.parquet", "TEST/a.parquet"])
    with pytest.raises(InputError, match=r"the splits train \(1 file\), test \(1 file\)"):
        ParquetSource(str(tmp_path / "upper"))
    write(tmp_path / "hive", ["split=a/0.parquet", "split=b/0.parquet"])
    assert numbers(ParquetSource(str(tmp_path / "hive"), split="b")) == list(range(10, 20))


def test_one_split_needs_no_name(tmp_path: Path) -> None:
    write(tmp_path, LAYOUTS["hub"][:2])
    assert ParquetSource(str(tmp_path)).num_rows == ParquetSource(str(tmp_path), split="train").num_rows == 20
    write(tmp_path / "one", ["val_test.parquet"])
    assert ParquetSource(str(tmp_path / "one")).num_rows == 10
    assert ParquetSource(str(tmp_path / "one" / "val_test.parquet"), split="test").num_rows == 10


def test_a_folder_without_splits_is_read_whole_and_takes_no_split(tmp_path: Path) -> None:
    write(tmp_path, LAYOUTS["none"])
    assert sorted(numbers(ParquetSource(str(tmp_path)))) == list(range(50))
    for split in ("train", "all", "train[:5]"):
        with pytest.raises(
            InputError, match=r"input\.split .*: input\.path has no splits.*input\.limit takes the first rows"
        ):
            ParquetSource(str(tmp_path), split=split)


def test_a_file_in_two_of_the_splits_that_a_job_names_is_refused(tmp_path: Path) -> None:
    write(tmp_path, LAYOUTS["in both"])
    assert numbers(ParquetSource(str(tmp_path), split="test")) == list(range(10))
    with pytest.raises(
        InputError, match=r"input\.split 'train\+test': train/test/a\.parquet is in several of these splits"
    ):
        ParquetSource(str(tmp_path), split="train+test")


SLICES = {
    "train[:5]": range(5),
    "train[7:13]": range(7, 13),
    "train[-3:]": range(17, 20),
    "train[:50%]": range(10),
    "train[15:]+test[:2]": [*range(15, 20), 20, 21],
    "test[5:]+train[:3]+test[:1]": [*range(25, 30), 0, 1, 2, 20],
    "all": range(30),
}


def sources(folder: Path, split: str | None) -> list[Source]:
    """The same rows in every format, opened for a split."""
    if not folder.exists():
        write(folder / "parquet", LAYOUTS["hub"])
        train, test = (datasets.Dataset.from_dict({"n": list(r)}) for r in (range(20), range(20, 30)))
        datasets.DatasetDict({"train": train, "test": test}).save_to_disk(str(folder / "saved"))
    return [ParquetSource(str(folder / "parquet"), split=split), HfSource(str(folder / "saved"), split, None)]


@pytest.mark.parametrize("split", SLICES)
def test_parts_of_splits_are_read_in_every_format(tmp_path: Path, split: str) -> None:
    expected = sorted(SLICES[split]) if split == "all" else list(SLICES[split])
    for source in sources(tmp_path / "in", split):
        found = numbers(source)
        assert (sorted(found) if split == "all" else found) == expected and source.num_rows == len(expected)
        for start in range(source.num_rows):
            assert numbers(source, start, source.num_rows) == found[start:]
            assert numbers(source, 0, start) == found[:start]
        names = source.row_names(0, source.num_rows)
        assert len(set(names)) == source.num_rows == len(names)
        assert source.row_names(1, 3) == names[1:3]


def test_rows_of_a_part_are_called_by_their_row_in_the_file(tmp_path: Path) -> None:
    source = sources(tmp_path / "in", "train[9:11]+test[4:5]")[0]
    prefix = "data/train-0000"
    expected = [f"{prefix}0-of-00002.parquet:9", f"{prefix}1-of-00002.parquet:0", "data/test-00000-of-00001.parquet:4"]
    assert source.row_names(0, 3) == expected


@pytest.mark.parametrize(
    ("split", "said"),
    [
        ("dev[:5]", "has the splits train, test"),
        ("train[", "input.split 'train['"),
        ("train[:x]", "input.split 'train[:x]'"),
        ("train+train", "row 0 of train is there twice"),
        ("train[:5]+test+train[4:8]", "row 4 of train is there twice"),
        ("train[5:5]", "there are no such rows"),
        ("all[:5]", "has the splits train, test"),
        ("", "has the splits train, test"),
    ],
)
def test_what_names_no_rows_is_refused_in_every_format(tmp_path: Path, split: str, said: str) -> None:
    sources(tmp_path / "in", "train")
    for opened in (ParquetSource, lambda path, split: HfSource(path.replace("parquet", "saved"), split, None)):
        with pytest.raises(InputError) as caught:
            opened(str(tmp_path / "in" / "parquet"), split=split)
        assert said in str(caught.value)


def test_a_part_of_a_saved_data_set_is_the_same_input_in_every_process(tmp_path: Path) -> None:
    found = [
        sources(tmp_path / "in", split)[1].parts[0].digest for split in ("train[:5]", "train[1:6]", "train[:5]+test")
    ]
    assert len(set(found)) == 3
    for split, digest in zip(("train[:5]", "train[1:6]", "train[:5]+test"), found, strict=True):
        opened = f"HfSource({str(tmp_path / 'in' / 'saved')!r}, {split!r}, None)"
        code = f"from run_batch.io.inputs.huggingface import HfSource; print({opened}.parts[0].digest)"
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == digest


def test_a_saved_data_set_that_is_no_dict_has_the_split_that_it_was_loaded_as(tmp_path: Path) -> None:
    table = datasets.Dataset.from_dict({"n": list(range(10))})
    table.save_to_disk(str(tmp_path / "none"))
    datasets.Dataset.from_dict({"n": list(range(10))}, split="test").save_to_disk(str(tmp_path / "test"))
    assert HfSource(str(tmp_path / "none"), None, None).row_names(0, 1) == ["train:0"]
    with pytest.raises(InputError, match=r"input\.split 'train': input\.path has no splits"):
        HfSource(str(tmp_path / "none"), "train", None)
    assert HfSource(str(tmp_path / "test"), None, None).row_names(0, 1) == ["test:0"]
    assert numbers(HfSource(str(tmp_path / "test"), "test[3:5]", None)) == [3, 4]
    with pytest.raises(InputError, match=r"has the splits test"):
        HfSource(str(tmp_path / "test"), "train", None)


def test_files_of_several_splits_need_one_named_and_data_sets_default_to_train(tmp_path: Path) -> None:
    sources(tmp_path / "in", "train")
    with pytest.raises(InputError, match=r"input\.split is not set, but input\.path holds the splits train .*; set it"):
        ParquetSource(str(tmp_path / "in" / "parquet"))
    assert HfSource(str(tmp_path / "in" / "saved"), None, None).row_names(0, 1) == ["train:0"]


def test_a_data_set_of_the_hub_is_read_by_its_split_train_or_by_the_only_one(monkeypatch: pytest.MonkeyPatch) -> None:
    train = datasets.Dataset.from_dict({"n": [1, 2]})
    splits = datasets.DatasetDict({"train": train, "test": train, "dev": train})

    def load(path: str, name: str | None, split: str | None) -> object:
        return splits if split is None else splits[split]

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert HfSource("org/name", None, None).row_names(0, 1) == ["train:0"]
    assert HfSource("org/name", "test", None).row_names(0, 1) == ["test:0"]
    del splits["train"]
    with pytest.raises(InputError, match=r"input\.split is not set, .* the splits test, dev; set it"):
        HfSource("org/name", None, None)
    del splits["dev"]
    assert HfSource("org/name", None, None).row_names(0, 1) == ["test:0"]
