"""A package that a model needs and that is not installed is named, by whatever error libraries tell of it."""

import importlib
import logging
import sys

import pytest
import torch

from run_batch.model.checkpoint.missing_package import missing_package, missing_packages_named
from run_batch.model.checkpoint.settings import SettingsError

IN_A_SUBPROCESS = """Error raised in subprocess:
Traceback (most recent call last):
  File "registry.py", line 1588, in _run
    from torchvision.transforms.v2 import functional as tvF
ModuleNotFoundError: No module named 'timm'
"""
TRANSFORMERS = """
AutoVideoProcessor requires the PyAv library but it was not found in your environment. You can install it with:
```
pip install av
```
"""


def imported(name: str) -> Exception:
    try:
        importlib.import_module(name)
    except ImportError as error:
        return error
    raise AssertionError(f"{name} exists")


@pytest.mark.parametrize(
    ("error", "package"),
    [
        (imported("no_such_package_x"), "no_such_package_x"),
        (imported("no_such_package_x.inner"), "no_such_package_x"),
        (ImportError("Package `num2words` is required to run SmolVLM processor."), "num2words"),
        (ImportError("Please install `open_clip`"), "open_clip_torch"),
        (ImportError("Run `pip install -U flash-linear-attention`."), "flash-linear-attention"),
        (ImportError("following packages that were not found in your environment: einops. Run"), "einops"),
        (ImportError(TRANSFORMERS), "av"),
        (RuntimeError(IN_A_SUBPROCESS), "timm"),
    ],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(error: Exception, package: str) -> None:
    expected = (
        f"the model needs the package {package}, which is not installed: {sys.executable} -m pip install {package}"
    )
    assert missing_package(error) == expected
    wrapped = ValueError("processor")
    wrapped.__cause__ = error
    assert missing_package(wrapped) == expected


@pytest.mark.parametrize("cuda", [None, "13.0"])
def test_torchvision_comes_with_torch(cuda: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch, "__version__", "2.13.0+cpu")
    for error, wrong in (
        (ModuleNotFoundError("No module named 'torchvision'"), "which is not installed"),
        (ImportError("AutoVideoProcessor requires the Torchvision library but it was"), "which is not installed"),
        (RuntimeError("operator torchvision::nms does not exist"), "which is not built for the installed torch"),
    ):
        message = missing_package(error)
        assert message is not None and message.startswith(f"the model needs the package torchvision, {wrong}: ")
        assert ("'torchvision==0.28.*' --index-url" in message) == (cuda is None)
        assert ("run-batch[gpu]" in message) == (cuda is not None)


def test_a_package_of_another_version_is_no_missing_one() -> None:
    message = missing_package(imported("transformers.no_such_module"))
    assert message is not None
    assert "needs transformers.no_such_module, which the installed version of the package transformers" in message


def test_an_import_that_fails_otherwise_is_told_in_one_line() -> None:
    message = missing_package(ImportError("cannot import name 'a'\nfrom 'b'"))
    assert message == "a package that the model needs cannot be imported: cannot import name 'a' from 'b'"


@pytest.mark.parametrize("error", [ValueError("No module named 'x'"), RuntimeError("out of memory"), KeyError("a")])
def test_other_errors_are_left_alone(error: Exception) -> None:
    assert missing_package(error) is None
    with pytest.raises(type(error)), missing_packages_named("model"):
        raise error


def test_what_vllm_only_logs_is_told_and_not_logged(capfd: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("vllm.model_executor.models.registry")
    with (
        pytest.raises(SettingsError, match=r"model\.path m: the model needs the package timm"),
        missing_packages_named("m"),
    ):
        logger.error("Error in inspecting model architecture", exc_info=RuntimeError(IN_A_SUBPROCESS))
        raise ValueError("Model architectures ['X'] failed to be inspected. Please check the logs for more details.")
    assert "Traceback" not in capfd.readouterr().err
    with pytest.raises(ValueError, match="unrelated"), missing_packages_named("m"):
        raise ValueError("unrelated")
