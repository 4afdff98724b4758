"""Checks a job's `model`, `engine` and `sampling` tables against the installed vLLM, and builds its objects from them.

Every mistake that shows without loading weights is found here, so that a typo costs seconds.
"""

import contextlib
import dataclasses
import json
import logging
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from run_batch.model.checkpoint.adapters import AdapterError, adapter_settings, check_slots, read_adapter
from run_batch.model.checkpoint.hub import is_hub_id
from run_batch.model.checkpoint.nearest_name import did_you_mean
from run_batch.model.checkpoint.refused_settings import why_refused
from run_batch.model.checkpoint.vllm_messages import in_own_words
from run_batch.model.declaration import declaration_of, declared_classes


class SettingsError(Exception):
    """A wrong key or value in the `model`, `engine` or `sampling` table; the message says what is accepted."""


_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """The settings of a job's model.

    Attributes:
        path: model folder, or the id of a model on the Hub.
        architecture: name of a registered model class; None for the checkpoint's own.
        engine: fields of vLLM's EngineArgs.
        trust_remote_code: run Python code that comes with the checkpoint.
        adapters: LoRA adapters, by the key of job.toml that names each: folders, or ids on the Hub.
        mapper: `auto`, or `vllm` for vLLM's own processor where there is a bulk mapper, too.
        by_priority: schedule rows by their priorities.
    """

    path: str
    architecture: str | None = None
    engine: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    trust_remote_code: bool = False
    adapters: Mapping[str, str] = dataclasses.field(default_factory=dict)
    mapper: str = "auto"
    by_priority: bool = False

    @property
    def runner(self) -> str:
        """What vLLM is to do with the model: `generate` or `pooling`."""
        return str(self.engine.get("runner") or "generate")


_SECRET = {"engine.hf_token"}
WORKER_ADAPTERS = "run_batch.model.checkpoint.adapter_fit.WorkerAdapters"


def build_engine_args(settings: ModelSettings) -> Any:
    """vLLM's EngineArgs for these settings.

    Raises:
        SettingsError: unknown key, wrong type, unusable model path or unknown architecture.
    """
    from vllm.engine.arg_utils import EngineArgs
    from vllm.exceptions import VLLMValidationError

    fields = {field.name for field in dataclasses.fields(EngineArgs)}
    _refuse_unknown("engine", settings.engine, fields)
    hints = _type_hints(EngineArgs)
    for key, value in settings.engine.items():
        _check_type(f"engine.{key}", value, hints.get(key))
    overrides = {**_adapter_settings(settings), **settings.engine}
    if settings.by_priority:
        overrides["scheduling_policy"] = "priority"
    if _lacks_dummy_data(_check_architecture(settings)):
        # Memory profiling needs dummy images, and the model declares none.
        overrides.setdefault("skip_mm_profiling", True)
    if settings.architecture is not None:
        own = overrides.get("hf_overrides") or {}
        overrides["hf_overrides"] = {**own, "architectures": [settings.architecture]}
    try:
        return EngineArgs(
            model=settings.path,
            trust_remote_code=settings.trust_remote_code,
            mm_processor_cache_gb=0,
            disable_log_stats=True,
            use_tqdm_on_load=False,
            **overrides,
        )
    # EngineArgs checks fields against each other, and looks up a model on the Hub.
    except (VLLMValidationError, ValueError, TypeError, OSError) as error:
        raise SettingsError(f"engine, model.path {settings.path}: {first_cause(error)}") from error


def _adapter_settings(settings: ModelSettings) -> dict[str, Any]:
    from vllm.config.lora import MaxLoRARanks
    from vllm.platforms import current_platform

    is_cpu = current_platform.is_cpu()
    try:
        check_slots(settings.adapters, settings.engine, is_cpu)
        adapters = [read_adapter(key, path) for key, path in settings.adapters.items()]
        found = adapter_settings(adapters, typing.get_args(MaxLoRARanks), is_cpu)
    except AdapterError as error:
        raise SettingsError(str(error)) from error
    return {**found, "worker_extension_cls": WORKER_ADAPTERS} if found else {}


def build_model_config(settings: ModelSettings, engine_args: Any = None) -> Any:
    """vLLM's ModelConfig: the checkpoint's config, dtype and lengths, without weights.

    Args:
        engine_args: of these settings, where they are built already.

    Raises:
        SettingsError: as for build_engine_args, vLLM refuses the combination, or the model does not do what the job is.
    """
    from vllm.exceptions import VLLMValidationError

    engine_args = engine_args or build_engine_args(settings)
    try:
        config = engine_args.create_model_config()
    except (VLLMValidationError, ValueError, OSError, RuntimeError) as error:
        raise SettingsError(f"model.path {settings.path}: {first_cause(error)}") from error
    if config.runner_type != settings.runner:
        raise SettingsError(
            f"model.path {settings.path}: {', '.join(config.architectures)} generates no text; for embeddings or "
            'scores, set engine.runner = "pooling"'
        )
    return config


def first_cause(error: Exception) -> str:
    """The message of an error of vLLM's or pydantic's, on one line and with the keys of job.toml."""
    if isinstance(error, ValidationError):
        text = "; ".join(
            f"{'.'.join(map(str, e['loc']))}: {e['msg']}" if e["loc"] else str(e["msg"]) for e in error.errors()
        )
    else:
        text = str(error)
    return in_own_words(" ".join(text.split())) or type(error).__name__


def build_sampling_params(values: Mapping[str, Any], **decided: Any) -> Any:
    """vLLM's SamplingParams.

    Raises:
        SettingsError: unknown key, or a value that vLLM refuses.
    """
    from vllm import SamplingParams
    from vllm.exceptions import VLLMValidationError

    _refuse_unknown("sampling", values, set(SamplingParams.__struct_fields__))
    hints = _type_hints(SamplingParams)
    # Tables, such as structured_outputs, become the classes that vLLM has for them.
    checked = {key: _check_type(f"sampling.{key}", value, hints.get(key)) for key, value in values.items()}
    try:
        return SamplingParams(**{**checked, **decided})
    except (VLLMValidationError, ValueError, TypeError, OverflowError) as error:
        raise SettingsError(f"sampling: {first_cause(error)}") from error


def _refuse_unknown(table: str, values: Mapping[str, Any], known: set[str]) -> None:
    for key, value in values.items():
        reason = why_refused(table, key, value)
        if reason is not None:
            raise SettingsError(f"{table}.{key} cannot be set: {reason}")
        if key not in known or key.startswith("_"):
            raise SettingsError(f"unknown key {table}.{key}{did_you_mean(key, known)}")


@cache
def _type_hints(cls: type) -> Mapping[str, Any]:
    """The type of each annotated field, except those whose types vLLM imports for type checkers only."""
    hints: dict[str, Any] = {}
    for name, annotation in cls.__annotations__.items():
        alone = type(cls.__name__, (), {"__annotations__": {name: annotation}, "__module__": cls.__module__})
        with contextlib.suppress(NameError):
            hints.update(typing.get_type_hints(alone))
    return hints


def _check_type(key: str, value: Any, hint: Any) -> Any:
    """The value converted to its type; unchanged where pydantic cannot check the type.

    Raises:
        SettingsError: it has another type.
    """
    from vllm.exceptions import VLLMValidationError

    if hint is None:
        return value
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=True))
    except PydanticUserError:  # a dataclass or model of vLLM's own, checked when vLLM builds it
        return value
    except Exception:  # a type that pydantic cannot check
        return value
    try:
        converted = adapter.validate_python(value)
        if _is_another_number(value, converted):
            raise SettingsError(f"{key} = {value!r}: expected {_KINDS[type(converted)]}")
        return converted
    except ValidationError as error:
        message = error.errors()[0]["msg"]
        shown = "(hidden)" if key in _SECRET else repr(value)
        raise SettingsError(f"{key} = {shown}: {message}") from None
    # vLLM's types raise errors of their own, and a number may be too large for its type.
    except (VLLMValidationError, ValueError, TypeError, OverflowError) as error:
        raise SettingsError(f"{key}: {first_cause(error)}") from None


_KINDS = {bool: "true or false", int: "a whole number", float: "a number"}


def _is_another_number(value: Any, converted: Any) -> bool:
    """Whether a number was made of text, or of true or false, as pydantic does: `"4"` and `true` look like mistakes."""
    if type(converted) not in _KINDS:
        return False
    return isinstance(value, str) or isinstance(value, bool) != isinstance(converted, bool)


def _lacks_dummy_data(architecture: str | None) -> bool:
    model_cls = next((cls for cls in declared_classes() if cls.__name__ == architecture), None)
    declaration = declaration_of(model_cls) if model_cls is not None else None
    if declaration is None or declaration.dummy_data is not None:
        return False
    _LOG.warning(
        "%s declares no dummy data: memory is profiled with text only, so large images may take more than there is; "
        "declare it with @INPUT_REGISTRY.register_dummy_data",
        architecture,
    )
    return True


def _check_architecture(settings: ModelSettings) -> str | None:
    """The architecture that vLLM will load, as far as it is known without the Hub.

    Raises:
        SettingsError: it is no registered model class.
    """
    from vllm import ModelRegistry

    config = _read_config(settings.path)
    if settings.architecture is None and config is None:
        return None
    supported = set(ModelRegistry.get_supported_archs())
    if settings.architecture is not None:
        named, key = [settings.architecture], "model.architecture"
    else:
        named = (config or {}).get("architectures") or []
        key = f"the checkpoint's own architecture ({settings.path}/config.json)"
    # For pooling, vLLM takes XForSequenceClassification for X with a head, and says itself what it does not know.
    is_known = bool(set(named) & supported) or (settings.architecture is None and settings.runner == "pooling")
    if named and not is_known:
        raise SettingsError(
            f"{key} {', '.join(named)} is not a registered model class{did_you_mean(named[0], supported)} "
            "(a class of your own: name its module in model.plugins)"
        )
    return next((name for name in named if name in supported), None)


def _read_config(path: str) -> dict[str, Any] | None:
    """A local checkpoint's config.json; None for a Hub id.

    Raises:
        SettingsError: no such folder, or no config.json that can be read.
    """
    folder = Path(path)
    if not folder.is_dir():
        if is_hub_id(path):
            return None
        raise SettingsError(f"model.path {path}: no such folder")
    try:
        config = json.loads((folder / "config.json").read_text())
    except FileNotFoundError:
        raise SettingsError(f"model.path {path}: the folder has no config.json") from None
    except (OSError, ValueError) as error:
        raise SettingsError(f"model.path {path}: config.json cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise SettingsError(f"model.path {path}: config.json is not a JSON object")
    return config
