"""Reads the rows of Hugging Face datasets: a folder written by `save_to_disk`, or a dataset on the Hub."""

import errno
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from run_batch.io.inputs.dataset_card import no_configurations
from run_batch.io.inputs.input_parts import InputPart
from run_batch.io.inputs.read_errors import reading, unreachable
from run_batch.io.inputs.source import InputError, LostInputError, RowBatch
from run_batch.io.inputs.splits import asked_rows, asked_splits, no_splits
from run_batch.io.transient import may_pass, retry

_BATCH_BYTES = 64 << 20

# Unlike file names, a data set says itself what its splits are: where one of several is called so, it is meant.
_DEFAULT_SPLIT = "train"
_IN_PLACE = (
    'It is copied into the cache of datasets (HF_HOME); input.path = "hf://datasets/{path}" reads its files in place'
)


def is_saved_dataset(folder: Path) -> bool:
    """Whether `datasets.save_to_disk` wrote this folder."""
    return (folder / "dataset_dict.json").is_file() or (
        (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()
    )


class HfSource:
    """The rows of one split of a Hugging Face dataset as Arrow columns; images stay encoded."""

    def __init__(self, path: str, split: str | None, name: str | None) -> None:
        """Open the dataset; a local one is mapped into memory, not read.

        Args:
            path: a folder written by `save_to_disk`, or a dataset id on the Hub.
            split: the split to read, or parts of splits such as `train[:10%]`; None for `train`, or the only one.
            name: name of the configuration, for a dataset on the Hub.

        Raises:
            InputError: no such dataset, configuration or split, or none is named of several without `train`.
        """
        self._path, folder = path, Path(path)
        self.folder: Path | None = folder if folder.is_dir() else None
        try:
            loaded, self._split = _load_saved(path, split, name) if self.folder else _load_from_hub(path, split, name)
        except InputError:
            raise
        except Exception as error:  # the library raises whatever its readers and the Hub's client raise
            if may_pass(error):
                raise unreachable(f"input.path {path}", error) from error
            hint = f". {_IN_PLACE.format(path=path)}" if self.folder is None and _is_disk_full(error) else ""
            raise InputError(f"input.path {path}: the data set cannot be opened: {_one_line(error)}{hint}") from None
        self._dataset = loaded.with_format("arrow")
        self.schema = loaded.features.arrow_schema
        self.unusable: Mapping[str, str] = {}
        self.index = b""
        self.num_rows: int = loaded.num_rows
        self._states = {file["filename"]: _state(file["filename"]) for file in loaded.cache_files}
        # The library's digest is of all rows that are asked for, in whatever files they are.
        self.parts = [InputPart(self._split, str(loaded._fingerprint), 0, loaded.num_rows)]

    def cursor(self, columns: Sequence[str], batch_rows: int) -> "HfCursor":
        """Make a cursor; see Source.cursor."""
        return HfCursor(self._path, self._dataset.select_columns(list(columns)), self._states, batch_rows)

    def starts(self) -> Iterator[range]:
        """Every row: the files are mapped into memory; see Source.starts."""
        yield range(self.num_rows)

    def row_names(self, start: int, stop: int) -> list[str]:
        """Name rows start..stop-1 by `SPLIT:ROW`; see Source.row_names."""
        return [f"{self._split}:{row}" for row in range(start, stop)]


class HfCursor:
    """Reads rows of files that are mapped into memory: any row can be sought, and nothing is kept between two reads."""

    def __init__(self, path: str, dataset: Any, states: Mapping[str, tuple[int, int]], batch_rows: int) -> None:
        """Read nothing yet.

        Args:
            path: names the input in errors.
            dataset: the columns to read.
            states: of each file, size and time of the last change when it was opened.
        """
        self._path, self._dataset, self._states, self._batch_rows = path, dataset, states, batch_rows

    def read(self, start: int, stop: int) -> Iterator[RowBatch]:
        """Read rows start..stop-1 in batches; see Cursor.read."""
        self._check_unchanged()
        for low in range(start, stop, self._batch_rows):
            with reading(f"input.path {self._path}"):
                table = self._dataset[low : min(low + self._batch_rows, stop)]
            for batch in _batches(table):
                yield RowBatch(low, batch)
                low += batch.num_rows

    def close(self) -> None:
        """Nothing is open; see Cursor.close."""

    def _check_unchanged(self) -> None:
        for name, state in self._states.items():
            with reading(name):
                changed = _state(name) != state
            if changed:
                raise LostInputError(
                    f"{name} has changed since the job started; put the old file back and run the same command "
                    "again, or start a new job"
                )


def _batches(table: pa.Table) -> list[pa.RecordBatch]:
    """The table in one batch, or in several that are limited in bytes."""
    if table.nbytes <= _BATCH_BYTES:
        return table.combine_chunks().to_batches()
    return table.to_batches(max_chunksize=max(1, _BATCH_BYTES * table.num_rows // table.nbytes))


def _load_from_hub(path: str, split: str | None, name: str | None) -> tuple[Any, str]:
    """The rows that `split` asks for, and what they are named by."""
    import datasets

    loaded = datasets.load_dataset(path, name, split=split)
    return (loaded, split) if split is not None else _take(loaded, None)


def _load_saved(path: str, split: str | None, name: str | None) -> tuple[Any, str]:
    """The rows that `split` asks for, and what they are named by."""
    import datasets

    if name is not None:
        raise no_configurations(name)
    loaded = datasets.load_from_disk(path)
    if isinstance(loaded, datasets.DatasetDict):
        return _take(loaded, split)
    if split is not None and loaded.split is None:
        raise no_splits(split)
    return _take({str(loaded.split or "train"): loaded}, split)


def _take(splits: Mapping[str, Any], split: str | None) -> tuple[Any, str]:
    import datasets

    if split is None and _DEFAULT_SPLIT in splits:
        split = _DEFAULT_SPLIT
    names = asked_splits(split, [str(name) for name in splits])
    parts = [
        splits[name] if last - first == splits[name].num_rows else splits[name].select(range(first, last))
        for name, first, last in asked_rows(split, {name: splits[name].num_rows for name in names})
    ]
    return parts[0] if len(parts) == 1 else datasets.concatenate_datasets(parts), split or names[0]


def _state(path: str) -> tuple[int, int]:
    status = retry(lambda: os.stat(path))
    return status.st_size, status.st_mtime_ns


def _is_disk_full(error: Exception) -> bool:
    """Whether a data set does not fit on the disk, as the library sees before it downloads, or the system after."""
    is_full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
    return is_full or "Not enough disk space" in str(error)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
