"""Whether the Hub answers: asked once in a process, for seconds.

Its own client asks for each file again and again, for a minute and more, and so do the libraries that use it. Where
the Hub does not answer, they are told to take what is on this machine (HF_HUB_OFFLINE), in this process and in all
that it starts.
"""

import os
import sys
import threading
from dataclasses import dataclass

_TRIES, _SECONDS = 2, 5.0
# A name server that does not answer is not under the client's limit.
_LONGEST_SECONDS = 12.0
_NO_ANSWERS = (429, 500, 502, 503, 504)


@dataclass(slots=True)
class _Access:
    """What this process knows of the Hub.

    Attributes:
        is_asked: it has been asked.
        trouble: why it does not answer; empty where it does.
    """

    is_asked: bool = False
    trouble: str = ""


_ACCESS = _Access()


def is_offline() -> bool:
    """Whether the Hub is not to be asked, by the user's word, or because it has not answered."""
    from huggingface_hub import constants

    return bool(constants.is_offline_mode())


def hub_trouble(repository: str) -> str:
    """Why the Hub does not answer, for people; empty where it does, or is not to be asked by the user's word.

    Args:
        repository: `org/name` of a model, `datasets/org/name` of a data set.
    """
    if not _ACCESS.is_asked and not is_offline():
        from huggingface_hub import constants

        _ACCESS.is_asked = True
        trouble = _ask(f"{constants.ENDPOINT}/{repository}/resolve/main/config.json")
        if trouble:
            _ACCESS.trouble = f"the Hub ({constants.ENDPOINT}) does not answer ({trouble})"
            _go_offline()
    return _ACCESS.trouble


def _ask(url: str) -> str:
    """Why there is no answer of a URL; empty where there is one."""
    trouble = ["no answer"]

    def ask() -> None:
        for _ in range(_TRIES):
            trouble[0] = _head(url)
            if not trouble[0]:
                return

    thread = threading.Thread(target=ask, name="hub", daemon=True)
    thread.start()
    thread.join(_LONGEST_SECONDS)
    return trouble[0]


def _head(url: str) -> str:
    from huggingface_hub.utils import build_hf_headers, get_session

    try:
        answer = get_session().head(url, headers=build_hf_headers(), timeout=_SECONDS, follow_redirects=False)
    except Exception as error:  # whatever the client of this version raises
        return " ".join(str(error).split()) or type(error).__name__
    return f"HTTP status {answer.status_code}" if answer.status_code in _NO_ANSWERS else ""


def _go_offline() -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    # Of what has been imported already.
    for module, name in (
        ("huggingface_hub.constants", "HF_HUB_OFFLINE"),
        ("datasets.config", "HF_HUB_OFFLINE"),
        ("datasets.config", "HF_DATASETS_OFFLINE"),
    ):
        if module in sys.modules:
            setattr(sys.modules[module], name, True)
