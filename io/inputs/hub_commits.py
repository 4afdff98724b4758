"""Repositories on the Hub that are read in place: a branch is read at the commit that it has when a job begins.

A job reads the same files from its first run to its last, whatever is pushed there meanwhile.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from run_batch.io import transient
from run_batch.io.inputs.read_errors import unreachable
from run_batch.io.inputs.source import InputError
from run_batch.io.transient import describe, may_pass, refusal, retry

_HUB = "hf://"
_BUCKETS = "hf://buckets/"


def at_commits(paths: Sequence[str], recorded: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """The paths of an input, with the commit in URLs of the Hub; and the commits, by what the URLs begin with.

    Args:
        recorded: the commits that the job began with. Of repositories that are not in it, the Hub is asked.

    Raises:
        InputError: there is no such repository or revision, or it may not be read.
        UnreachableInputError: storage or network fail in a way that may pass.
    """
    pinned, commits = [], dict[str, str]()
    for path in paths:
        # A bucket has no commits.
        if not path.startswith(_HUB) or path.startswith(_BUCKETS):
            pinned.append(path)
            continue
        begin = next((key for key in recorded if path == key or path.startswith(f"{key}/")), None)
        if begin is None:
            begin, commit = _resolve(path)
        else:
            commit = recorded[begin]
        commits[begin] = commit
        pinned.append(f"{commit}{path.removeprefix(begin)}")
    return pinned, commits


def recorded_commits(index: bytes) -> dict[str, str]:
    """The commits in an index; none where it is damaged, or of an input that is not on the Hub."""
    try:
        found: dict[str, str] = json.loads(index).get("commits", {})
    except (ValueError, AttributeError):
        return {}
    return found


def _resolve(url: str) -> tuple[str, str]:
    """What a URL begins with, up to its revision, and the same with the commit; or the whole URL, likewise."""
    from huggingface_hub import HfFileSystem

    url = url.rstrip("/")
    files = HfFileSystem(skip_instance_cache=True)
    try:
        found: Any = retry(lambda: files.resolve_path(url), transient.REMOTE_PAUSES)
        commit = retry(lambda: _commit(files, found), transient.REMOTE_PAUSES)
    except Exception as error:  # the Hub's client has errors of its own, and those of its client of http
        raise _unresolved(url, error) from error
    root = f"{_HUB}{'' if found.repo_type == 'model' else f'{found.repo_type}s/'}{found.repo_id}@{commit}"
    inside = found.path_in_repo
    if not url.endswith(f"/{inside}"):  # the library reads its path in another way than it is written
        return url, f"{root}/{inside}".rstrip("/")
    return url.removesuffix(f"/{inside}"), root


def _commit(files: Any, found: Any) -> str:
    from huggingface_hub import HfApi

    api = HfApi(endpoint=files.endpoint, token=files.token)
    return str(api.repo_info(found.repo_id, repo_type=found.repo_type, revision=found.revision).sha)


def _unresolved(url: str, error: Exception) -> InputError:
    shown = f"input.path {url}"
    if may_pass(error):
        return unreachable(shown, error)
    if isinstance(error, FileNotFoundError) or refusal(error):
        return InputError(
            f"{shown}: no such repository or revision on the Hub, or one that needs a token: set HF_TOKEN, or log in "
            "with `hf auth login`. A data set's URL is hf://datasets/ORG/NAME, or hf://datasets/ORG/NAME@REVISION"
        )
    return InputError(f"{shown} cannot be read: {describe(error)}")
