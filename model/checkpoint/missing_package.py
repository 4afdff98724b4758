"""Names the Python package that a model's module or processor needs and that is not installed, or does not fit."""

import contextlib
import importlib.util
import logging
import re
import sys
from collections.abc import Iterator

from run_batch.model.checkpoint.settings import SettingsError

# How libraries tell of it, also where they catch the failed import and raise an error of their own.
_MISSING = tuple(
    re.compile(pattern)
    for pattern in (
        r"No module named '([\w.]+)'",
        r"operator (torchvision)::\w+ does not exist",
        r"pip install (?:-U |--upgrade )?[`'\"]?([\w.-]+)",
        r"[Pp]ackage [`'\"]?([\w.-]+)[`'\"]? is required",
        r"not found in your environment: ([\w.-]+)",
        r"requires the (\w+) library",
        r"[Pp]lease install [`'\"]?([\w.-]+)",
    )
)
# The last line of a traceback: vLLM imports a model in a process of its own, and passes on the text alone.
_RAISED_ELSEWHERE = re.compile(r"^(?:ModuleNotFoundError|ImportError): (.+)", re.MULTILINE)
_TORCHVISION_OPERATOR = "operator torchvision::"
# Names to install, where they are not those to import.
_DISTRIBUTIONS = {
    "cv2": "opencv-python-headless",
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
    "flash_attn": "flash-attn",
    "open_clip": "open_clip_torch",
}


def missing_package(error: BaseException) -> str | None:
    """One line about the package whose absence raised `error`, and how to install it; None for another cause."""
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        text = _failed_import(cause)
        if text is not None:
            return _describe(text)
        cause = cause.__cause__ or cause.__context__
    return None


def _failed_import(error: BaseException) -> str | None:
    """What a failed import says; None for another error."""
    text = str(error)
    if isinstance(error, ImportError) or _TORCHVISION_OPERATOR in text:
        return text or type(error).__name__
    elsewhere = _RAISED_ELSEWHERE.findall(text) if isinstance(error, RuntimeError) else []
    return elsewhere[-1] if elsewhere else None


def _describe(text: str) -> str:
    found = next((match[1] for match in (pattern.search(text) for pattern in _MISSING) if match), None)
    if found is None:
        return f"a package that the model needs cannot be imported: {' '.join(text.split())}"
    module = found.rstrip(".").partition(".")[0]
    package = _DISTRIBUTIONS.get(module, module)
    if module.lower() == "torchvision":
        return f"the model needs the package torchvision, {_torchvision(text)}"
    if f"No module named '{found}'" in text and found != module and importlib.util.find_spec(module) is not None:
        return f"the model needs {found}, which the installed version of the package {package} does not have"
    return f"the model needs the package {package}, which is not installed: {sys.executable} -m pip install {package}"


def _torchvision(text: str) -> str:
    import torch

    wrong = "which is not built for the installed torch" if _TORCHVISION_OPERATOR in text else "which is not installed"
    if torch.version.cuda or torch.version.hip:
        return f"{wrong}: a GPU install brings it, {sys.executable} -m pip install 'run-batch[gpu]'"
    # torch 2.0 came with torchvision 0.15, and so on.
    minor = int(torch.__version__.split(".")[1]) + 15
    return (
        f"{wrong}: a GPU install brings it; beside a CPU torch, {sys.executable} -m pip install --no-deps "
        f"'torchvision==0.{minor}.*' --index-url https://download.pytorch.org/whl/cpu"
    )


class _FailedInspections(logging.Filter):
    """Keeps why vLLM could not import a model's module, and keeps the traceback that vLLM logs of it off the log."""

    error: BaseException | None = None

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if record.exc_info else None
        if error is None or missing_package(error) is None:
            return True
        self.error = error
        return False


# vLLM inspects a model once per process.
_failed_inspections = _FailedInspections()


@contextlib.contextmanager
def missing_packages_named(path: str) -> Iterator[None]:
    """Name a missing package where vLLM loads the configs, the class or the processor of the model at `path`.

    Raises:
        SettingsError: in place of any error that a missing package has caused.
    """
    registry = logging.getLogger("vllm.model_executor.models.registry")
    registry.addFilter(_failed_inspections)
    try:
        yield
    except Exception as error:
        message = missing_package(error)
        if message is None and _failed_inspections.error is not None and "failed to be inspected" in str(error):
            message = missing_package(_failed_inspections.error)
        if message is None:
            raise
        raise SettingsError(f"model.path {path}: {message}") from error
    finally:
        registry.removeFilter(_failed_inspections)
