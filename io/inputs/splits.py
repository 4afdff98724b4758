"""Splits of a data set: which one a job asks for, and which files of a folder belong to it.

Names follow `datasets.load_dataset`, so that a folder gives the same rows there and here.
"""

import itertools
import os
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from run_batch.io.inputs.source import InputError

# Rows of all splits.
ALL = "all"
_KEYWORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}
# A keyword counts where neither letters nor other signs touch it: `train-part1`, `my_train.v2`, but not `trained`.
_KEYWORD = {
    split: re.compile(rf"(?:^|[-._ 0-9])(?:{'|'.join(words)})(?:[-._ 0-9]|$)", re.IGNORECASE)
    for split, words in _KEYWORDS.items()
}
_SHARD = re.compile(r"data/(\w+(?:\.\w+)*)-\d{5}-of-\d{5}[^/]*\.[^/]*")
_PARTITION = re.compile(r"(?:^|/)split=([^/]+)/")


def splits_of(names: Sequence[str], folder: str) -> dict[str, list[int]]:
    """Sort files into splits: by the first rule that finds any, of `data/NAME-00000-of-00001.parquet`, folders that are
    called like a split, files that are, and partitions `split=NAME/`.

    Args:
        names: paths of the files relative to the folder.
        folder: name of the folder itself, which may be `data`.

    Returns:
        For each split the indices of its files; empty for a folder without splits. A file may be in several or in none.
    """
    for rule in (_of_shard, _of_folders, _of_file, _of_partition):
        found: dict[str, list[int]] = {}
        for index, name in enumerate(names):
            for split in rule(name, folder):
                found.setdefault(split, []).append(index)
        if found:
            order = [*_KEYWORDS, *sorted(found)]
            return {split: found[split] for split in sorted(found, key=order.index)}
    return {}


def _of_shard(name: str, folder: str) -> list[str]:
    match = _SHARD.fullmatch(name) or (folder == "data" and _SHARD.fullmatch(f"data/{name}"))
    return [match[1]] if match else []


def _of_folders(name: str, _: str) -> list[str]:
    folders = name.split("/")[:-1]
    return [split for split, keyword in _KEYWORD.items() if any(map(keyword.search, folders))]


def _of_file(name: str, _: str) -> list[str]:
    return [split for split, keyword in _KEYWORD.items() if keyword.search(os.path.basename(name))]


def _of_partition(name: str, _: str) -> list[str]:
    match = _PARTITION.search(name)
    return [match[1]] if match else []


def choose_files(names: Sequence[str], splits: Mapping[str, Sequence[int]], split: str | None) -> dict[str, list[int]]:
    """Choose the files of the split that a job asks for.

    Args:
        names: paths of all files.
        splits: indices of the files of each split.
        split: `input.split`.

    Returns:
        For each split that `split` names the indices of its files; all files under one name where it need not be named.

    Raises:
        InputError: no such split, none named where there are several, or one named where there are none.
    """
    whole = {ALL: list(range(len(names)))}
    if split is None:
        if not splits or any(len(files) == len(names) for files in splits.values()):
            return whole
        raise InputError(f"input.split is not set, but input.path holds {_describe(names, splits)}; {_choices(splits)}")
    if not splits:
        raise no_splits(split)
    chosen = whole if split == ALL else {name: list(splits[name]) for name in asked_splits(split, splits)}
    files = [index for indices in chosen.values() for index in indices]
    twice = next((index for index, times in Counter(files).items() if times > 1), None)
    if twice is not None:
        raise InputError(f"input.split {split!r}: {names[twice]} is in several of these splits")
    return chosen


def no_splits(split: str) -> InputError:
    """The error of a job that names a split of an input without any."""
    return InputError(
        f"input.split {split!r}: input.path has no splits, as far as names of files and folders tell; leave "
        "input.split out (input.limit takes the first rows)"
    )


def _describe(names: Sequence[str], splits: Mapping[str, Sequence[int]]) -> str:
    counted = [f"{name} ({len(files)} {'file' if len(files) == 1 else 'files'})" for name, files in splits.items()]
    rest = sorted(set(range(len(names))).difference(*splits.values()))
    others = f", and {len(rest)} of no split, such as {names[rest[0]]}" if rest else ""
    return f"the splits {', '.join(counted)}{others}"


def _choices(splits: Collection[str]) -> str:
    first, *others = splits
    several = f', "{first}+{others[0]}"' if others else ""
    return f'set it: "{first}"{several}, or "{ALL}"'


def asked_splits(split: str | None, available: Collection[str]) -> list[str]:
    """The names of the splits that `input.split` asks for, each once.

    Raises:
        InputError: no such split, or none named where there are several.
    """
    if split is None and len(available) > 1:
        raise InputError(
            f"input.split is not set, but input.path holds the splits {', '.join(available)}; {_choices(available)}"
        )
    if split is None or split == ALL:
        return list(available)
    asked = [part.partition("[")[0].strip() for part in split.split("+")]
    if not set(asked) <= set(available):
        raise InputError(f"input.split {split!r}: input.path has the splits {', '.join(available)}")
    return list(dict.fromkeys(asked))


def asked_rows(split: str | None, lengths: Mapping[str, int]) -> list[tuple[str, int, int]]:
    """The rows that `input.split` asks for, such as `train[:10%]+test`.

    Args:
        lengths: rows of each split that it names, in order.

    Returns:
        (name of the split, first row, last row + 1), in order.

    Raises:
        InputError: it cannot be understood, or names a row twice.
    """
    if split is None or split == ALL:
        return [(name, 0, length) for name, length in lengths.items()]
    if "[" in split:
        parts = _parse(split, lengths)
    else:
        parts = [(name, 0, lengths[name]) for name in map(str.strip, split.split("+"))]
    ordered = sorted(parts)
    for (name, _, stop), (other, start, _) in itertools.pairwise(ordered):
        if name == other and start < stop:
            raise InputError(f"input.split {split!r}: row {start} of {name} is there twice")
    return parts


def _parse(split: str, lengths: Mapping[str, int]) -> list[tuple[str, int, int]]:
    from datasets import ReadInstruction

    try:
        parts = ReadInstruction.from_spec(split).to_absolute(lengths)
    except Exception as error:  # datasets checks some of it by assertions
        raise InputError(f"input.split {split!r}: {' '.join(str(error).split()) or 'cannot be understood'}") from None
    rows = [(part.splitname, part.from_, part.to) for part in parts if part.from_ < part.to]
    if not rows:
        raise InputError(f"input.split {split!r}: there are no such rows in {lengths}")
    return rows
