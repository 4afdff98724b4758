"""The `vllm.general_plugins` entry point: makes the declared models known in every process that vLLM starts.

vLLM calls `register` in the main process, in each engine process and in each of its workers. It does nothing unless
run-batch started the process tree, so installing run-batch changes no other use of vLLM.
"""

import ctypes
import filecmp
import importlib
import json
import multiprocessing
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

from run_batch.model.declaration import DeclarationError, declared_classes
from run_batch.model.engine_phases import note_phases
from run_batch.model.failure_reports import name_plugins, report_deaths

PLUGINS_VARIABLE = "RUN_BATCH_PLUGINS"
# vLLM's own name for where its sockets are; its `vllm_dist_*` files go there, too.
ENGINE_FOLDER_VARIABLE = "VLLM_RPC_BASE_PATH"
OWN_MODELS = ("run_batch.model.families.llava", "run_batch.model.families.llava_next")


class PluginError(Exception):
    """A module named in `model.plugins` cannot be imported; the message holds the module's own error."""


def announce_plugins(modules: Sequence[str], folder: Path) -> None:
    """Set which modules `register` imports, in this process and those that it starts.

    Args:
        modules: importable names.
        folder: the folder of job.toml, which is searched after the Python path.
    """
    os.environ[PLUGINS_VARIABLE] = json.dumps({"modules": list(modules), "folder": str(folder)})


def register() -> None:
    """Import the project's models and the job's plugins, and register every declared class with vLLM by its name.

    Raises:
        PluginError: a module cannot be imported.
        DeclarationError: see `_by_name`.
    """
    announced = os.environ.get(PLUGINS_VARIABLE)
    if announced is None:
        return
    if multiprocessing.parent_process() is not None:
        _die_with_parent()
        report_deaths()
        note_phases()
    plugins = json.loads(announced)
    if plugins["folder"] not in sys.path:
        sys.path.append(plugins["folder"])
    name_plugins(plugins["modules"])
    _keep_files_together()
    from run_batch.model.rendering.device_pixels import install_device_pixels

    install_device_pixels()
    for module in OWN_MODELS:
        importlib.import_module(module)
    for module in plugins["modules"]:
        _import_plugin(module, Path(plugins["folder"]))

    from vllm import ModelRegistry

    for model_cls in _by_name(declared_classes()).values():
        ModelRegistry.register_model(model_cls.__name__, model_cls)


def _keep_files_together() -> None:
    """Have vLLM make its `vllm_dist_*` files beside its sockets, not in the temporary folder, where they stay."""
    folder = os.environ.get(ENGINE_FOLDER_VARIABLE)
    if folder is None:
        return
    from vllm.utils import network_utils
    from vllm.v1.executor import multiproc_executor, uniproc_executor

    for module in (network_utils, multiproc_executor, uniproc_executor):
        module.get_file_store_init_method = lambda: f"file://{folder}/vllm_dist_{uuid4().hex}"  # type: ignore[attr-defined]


def _by_name(classes: Sequence[type]) -> dict[str, type]:
    """The classes by their names; one of a plugin may replace one of run-batch's own.

    Raises:
        DeclarationError: two plugins declare the same name, or a class is no multi-modal model.
    """
    from vllm.model_executor.models.interfaces import supports_multimodal

    named: dict[str, type] = {}
    for model_cls in classes:
        if not supports_multimodal(model_cls):
            raise DeclarationError(
                f"{model_cls.__module__}.{model_cls.__name__} declares inputs, but does not implement vLLM's "
                "SupportsMultiModal: class YourModel(nn.Module, SupportsMultiModal)"
            )
        other = named.get(model_cls.__name__)
        if other is not None and other.__module__ not in OWN_MODELS:
            raise DeclarationError(
                f"{other.__module__} and {model_cls.__module__} both declare a model {model_cls.__name__}; rename one"
            )
        named[model_cls.__name__] = model_cls
    return named


def _die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies.

    vLLM's engine process would otherwise outlive a killed run and hold the memory that the next one needs.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    set_death_signal = 1  # PR_SET_PDEATHSIG of prctl(2)
    ctypes.CDLL(None).prctl(set_death_signal, signal.SIGKILL)
    if os.getppid() != parent.pid:  # the parent died before prctl
        os.kill(os.getpid(), signal.SIGKILL)


def _import_plugin(module: str, folder: Path) -> None:
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name == module.split(".")[0]:
            raise PluginError(
                f"model.plugins names {module!r}, which is neither installed nor in the folder of job.toml"
            ) from None
        raise PluginError(f"model.plugins: importing {module!r} failed: {error}") from error
    except (Exception, SystemExit) as error:
        raise PluginError(f"model.plugins: importing {module!r} failed: {type(error).__name__}: {error}") from error
    _refuse_another(module.split(".")[0], folder)


def _refuse_another(name: str, folder: Path) -> None:
    """Refuse a plugin in the folder of job.toml in whose place other code of its name has been imported."""
    own = [path for path in (folder / f"{name}.py", folder / name / "__init__.py") if path.exists()]
    used = getattr(sys.modules[name], "__file__", None)
    if own and (used is None or not any(filecmp.cmp(path, used, shallow=False) for path in own)):
        raise PluginError(
            f"model.plugins names {name!r}, which is {own[0]} and also another module that Python finds first "
            f"({used or 'a part of Python'}): rename the plugin"
        )
