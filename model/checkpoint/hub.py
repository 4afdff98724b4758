"""Small files of a checkpoint, from its folder or from the Hub; needs neither vLLM nor transformers."""

import contextlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

from run_batch.model.checkpoint.hub_access import hub_trouble, is_offline

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

    hub_trouble(path)
    folder = None
    for name in files:
        # What is needed and is not there is asked for again by vLLM, which says what is wrong.
        with contextlib.suppress(Exception):
            folder = Path(hf_hub_download(path, name, revision=revision, local_files_only=is_offline())).parent
    return folder


def check_on_hub(repository: str, revision: str | None, file: str) -> None:
    """Check that a model or an adapter can be had: from the Hub, or from its cache where the Hub does not answer.

    Args:
        repository: its id.
        revision: branch, tag or commit; the Hub's default where it is None.
        file: one that it has, unless it is of an unusual kind.

    Raises:
        HubError: it cannot be had; the message names it, and says what to do.
    """
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from huggingface_hub import constants, errors, hf_hub_download

    trouble = hub_trouble(repository)
    of_revision = f" (revision {revision})" if revision is not None else ""
    try:
        hf_hub_download(repository, file, revision=revision, local_files_only=is_offline())
    except errors.LocalEntryNotFoundError as error:
        raise _not_here(repository + of_revision, trouble, error) from error
    except errors.EntryNotFoundError:
        return  # vLLM knows which other files it looks for
    except errors.GatedRepoError as error:
        page = f"{constants.ENDPOINT}/{repository}"
        raise HubError(f"{repository} is gated: accept its conditions on {page}, and set HF_TOKEN") from error
    except errors.RevisionNotFoundError as error:
        raise HubError(f"{repository} has no revision {revision} on the Hub (engine.revision)") from error
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise HubError(
            f"there is no {repository} on the Hub ({constants.ENDPOINT}), or it is private: correct the id, or set "
            "HF_TOKEN to a token that may read it (hf auth whoami tells whose it is)"
        ) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        raise HubError(f"the Hub ({constants.ENDPOINT}) refuses {repository}: HTTP status {status}") from error


def _not_here(repository: str, trouble: str, error: Exception) -> "HubError":
    """The error of what is not in the cache, and cannot be had from the Hub."""
    if is_offline() and not trouble:
        return HubError(
            f"HF_HUB_OFFLINE is set, and there is no copy of {repository} in the Hub's cache on this machine "
            "(HF_HOME). Unset it, copy it here where the Hub is reached (hf download), or name a local folder"
        )
    cause = " ".join(str(error.__cause__ or error).split())[:200]
    why = trouble or f"the Hub does not answer as its client expects ({cause})"
    return HubError(
        f"{why}, and there is no copy of {repository} in the Hub's cache on this machine (HF_HOME). Check network, "
        "proxy and HF_ENDPOINT; or copy it here where the Hub is reached (hf download), and name its folder",
        passes=True,
    )


class HubError(Exception):
    """A repository cannot be had.

    Attributes:
        passes: the Hub does not answer: the same may work later.
    """

    def __init__(self, message: str, passes: bool = False) -> None:
        super().__init__(message)
        self.passes = passes
