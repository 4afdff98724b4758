"""Small files of a checkpoint, from its folder or from the Hub; needs neither vLLM nor transformers."""

import os
import re
from collections.abc import Sequence
from pathlib import Path

# `org/name`.
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*")


def is_hub_id(path: str) -> bool:
    """Whether this is the id of a repository on the Hub, not a folder here."""
    return not Path(path).is_dir() and bool(HUB_ID.fullmatch(path))


def snapshot_folder(path: str, revision: str | None, files: Sequence[str]) -> Path | None:
    """The folder of a checkpoint, with these files if it has them; None where there is none, or the Hub is not reached.

    Args:
        path: a folder, or an id on the Hub: then the files are downloaded to the Hub's cache on this machine. The name
            of the folder is the commit.
        revision: branch, tag or commit; the Hub's default where it is None.
    """
    if not is_hub_id(path):
        return Path(path) if Path(path).is_dir() else None
    # As vLLM does it, no bars of single small files.
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    folder, is_reached = None, True
    for name in files:
        # What is needed and is not there is asked for again by vLLM, which says what is wrong.
        try:
            folder = Path(hf_hub_download(path, name, revision=revision, local_files_only=not is_reached)).parent
        except (
            LocalEntryNotFoundError
        ):  # neither in the cache nor from the network, on which each file takes half a minute
            is_reached = False
        except Exception:
            continue
    return folder
