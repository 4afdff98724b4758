"""`run-batch new-model`: a plugin with a small model of one's own, a job that runs it, and its test.

The files are those of the folder `skeleton`, which work as they are, under another name.
"""

import importlib.util
import keyword
import os
import re
import sys
from pathlib import Path

from run_batch.jobs.job.errors import JobError, RunError

_SKELETON = Path(__file__).parent / "skeleton"
_FILES = ("my_model.py", "job.toml", "make_tiny.py", "test_my_model.py")
_NAMES = re.compile("my_model|MyModel")


def new_model(name: str, folder: Path) -> list[Path]:
    """Write the skeleton of a plugin into a new folder.

    Args:
        name: of the plugin's module, and the model type in config.json; `my_model` makes a class
            MyModelForConditionalGeneration.
        folder: is made, with those above it.

    Returns:
        The files that are written, the module first.

    Raises:
        JobError: the name cannot be that of a module or a model type, or the folder is there already.
        RunError: the folder cannot be written.
    """
    _check_name(name)
    if os.path.lexists(folder):
        raise JobError(f"{folder} is there already; name another folder with --output, or another model")
    _check_model_type(name)
    try:
        folder.mkdir(parents=True)
        return [_write(folder, file, name) for file in _FILES]
    except FileExistsError as error:
        raise JobError(f"{error.filename} is there already; name another folder with --output") from None
    except OSError as error:
        raise RunError(f"{error.filename or folder} cannot be written: {error.strerror}") from error


def _write(folder: Path, file: str, name: str) -> Path:
    path = folder / file.replace("my_model", name)
    names = {"my_model": name, "MyModel": _class_name(name)}
    with open(path, "x", encoding="utf-8") as out:
        out.write(_NAMES.sub(lambda found: names[found[0]], _text_of(file)))
    return path


def _text_of(file: str) -> str:
    return (_SKELETON / file).read_text(encoding="utf-8")


def _class_name(name: str) -> str:
    """`my_model` as MyModel; what is written in capitals stays so."""
    return "".join(word[0].upper() + word[1:] for word in name.split("_") if word)


def _check_name(name: str) -> None:
    """Check that a module can have this name.

    Raises:
        JobError: it cannot, or there is one.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        raise JobError(
            f"{name!r} cannot name a Python module: write letters from a to z, digits and _, a letter first, "
            "such as my_model"
        )
    if keyword.iskeyword(name) or keyword.issoftkeyword(name) or name == "conftest":
        raise JobError(f"{name} means something else to Python or pytest; take another name")
    if name in sys.modules or importlib.util.find_spec(name) is not None:
        raise JobError(f"there is a module {name} already, which `import {name}` would find; take another name")
    words = set(re.findall(r"\w+", _NAMES.sub(" ", " ".join(map(_text_of, _FILES)))))
    # `import config` beside a variable config, `class AutoConfig` beside the one that is imported.
    if {name, f"{_class_name(name)}Config"} & words:
        raise JobError(
            f"{name} would clash with other names in the files that are written; take another, such as my_{name}"
        )


def _check_model_type(name: str) -> None:
    """Check that neither transformers nor vLLM has a model of this name, however it is written.

    Raises:
        JobError: one of them has.
    """
    # This imports vLLM, which takes seconds: what can be refused without it is refused before.
    from run_batch.model.checkpoint.known_types import known_model_types

    known = {_plain(known): known for known in sorted(known_model_types())}.get(_plain(name))
    if known is not None:
        raise JobError(f"{known} is a model type that transformers or vLLM knows; take another name, such as my_{name}")


def _plain(name: str) -> str:
    return re.sub("[-_.]", "", name).lower()
