"""The configurations that the README.md of a data set declares: which of its files make which split.

Copies of data sets of the Hub have such a file; `datasets.load_dataset` goes by it before it looks at names.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from run_batch.io.inputs.input_files import InputFiles
from run_batch.io.inputs.source import InputError
from run_batch.io.inputs.splits import splits_of

_FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)^---\s*$", re.DOTALL | re.MULTILINE)


def files_and_splits(files: InputFiles, name: str | None) -> tuple[InputFiles, dict[str, list[int]]]:
    """The files of one configuration, and the indices of the files of each of its splits.

    Args:
        files: all files of the input.
        name: `input.name`; None for the only configuration, or the default one.

    Raises:
        InputError: no such configuration, or none named where there are several without a default.
    """
    names = [files.name(path) for path in files.paths]
    configurations = _declared(files.read_card())
    if not configurations:
        if name is not None:
            raise no_configurations(name)
        return files, splits_of(names, os.path.basename(files.root.rstrip("/")))
    name = _choose(configurations, name)
    try:
        splits = _splits(configurations[name], names, files.root)
    except (TypeError, KeyError, re.error) as error:
        raise _not_understood(error) from None
    chosen = sorted({index for indices in splits.values() for index in indices})
    if not chosen:
        raise InputError(f"input.name: no file is in configuration {name!r} of {files.root}/README.md")
    position = {index: i for i, index in enumerate(chosen)}
    splits = {split: [position[i] for i in indices] for split, indices in splits.items() if indices}
    return replace(files, paths=[files.paths[i] for i in chosen]), splits


def no_configurations(name: str) -> InputError:
    """The error of a job that names a configuration of an input without any."""
    return InputError(
        f"input.name {name!r}: input.path has no configurations; those of the Hub have, and folders whose README.md "
        "declares them"
    )


def _declared(card: str) -> dict[str, Mapping[str, Any]]:
    """The configurations by name."""
    matter = _FRONT_MATTER.match(card)
    if matter is None or not re.search(r"^configs:", matter[1], re.MULTILINE):
        return {}
    import yaml

    try:
        return {str(config["config_name"]): config for config in yaml.safe_load(matter[1])["configs"] or []}
    except (yaml.YAMLError, TypeError, KeyError) as error:
        raise _not_understood(error) from None


def _not_understood(error: Exception) -> InputError:
    reason = f"{type(error).__name__}: {error}"
    return InputError(f"input.path: the configs in README.md cannot be understood: {' '.join(reason.split())}")


def _choose(configurations: Mapping[str, Mapping[str, Any]], name: str | None) -> str:
    if name is None:
        defaults = [key for key, config in configurations.items() if config.get("default") is True or key == "default"]
        if len(configurations) > 1 and not defaults:
            raise InputError(
                f"input.name is not set, but README.md declares the configurations {', '.join(configurations)}; set it"
            )
        return next(iter([*defaults, *configurations]))
    if name not in configurations:
        raise InputError(f"input.name {name!r}: README.md declares the configurations {', '.join(configurations)}")
    return name


def _splits(config: Mapping[str, Any], names: Sequence[str], root: str) -> dict[str, list[int]]:
    folder = str(config.get("data_dir") or "").strip("./")
    inside = {i: name.removeprefix(f"{folder}/") for i, name in enumerate(names) if _is_below(name, folder)}
    declared = config.get("data_files")
    if declared is None:
        indices, found = list(inside), splits_of(list(inside.values()), os.path.basename(folder or root.rstrip("/")))
        return {split: [indices[i] for i in places] for split, places in found.items()} or {"train": indices}
    entries = declared if isinstance(declared, list) else [declared]
    splits: dict[str, list[int]] = {}
    for entry in entries:
        split, paths = (str(entry["split"]), entry["path"]) if isinstance(entry, dict) else ("train", entry)
        patterns = [_compiled(str(path)) for path in (paths if isinstance(paths, list) else [paths])]
        matches = [i for i, name in inside.items() if any(pattern.fullmatch(name) for pattern in patterns)]
        splits[split] = sorted({*splits.get(split, []), *matches})
    return splits


def _is_below(name: str, folder: str) -> bool:
    return not folder or name.startswith(f"{folder}/")


def _compiled(pattern: str) -> re.Pattern[str]:
    """A glob of fsspec as an expression for whole paths: `*` stays in a folder, `**` does not."""
    special = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    tokens = re.findall(r"\*\*/|\*\*|\*|\?|\[!?[^\]]+\]|[^*?\[]+|\[", pattern.removeprefix("./"))
    return re.compile(
        "".join(
            special.get(t) or (t.replace("[!", "[^") if len(t) > 1 and t[0] == "[" else re.escape(t)) for t in tokens
        )
    )
