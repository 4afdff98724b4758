"""Refuses keys of `engine.mm_processor_kwargs` that nothing reads: vLLM and transformers ignore them without a word."""

import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from types import CodeType, FunctionType, ModuleType
from typing import Any

from run_batch.model.checkpoint.nearest_name import did_you_mean
from run_batch.model.checkpoint.settings import SettingsError
from run_batch.model.declaration import Declaration

# transformers groups a processor's arguments by these.
_SCOPES = {"text_kwargs", "images_kwargs", "videos_kwargs", "audio_kwargs", "common_kwargs"}
# A function that uses none of these names never sees the kwargs.
_READERS = {
    *("mm_processor_kwargs", "get_merged_mm_kwargs", "get_hf_processor", "init_processor", "call_hf_processor"),
    "image_settings",
}


def check_declared(engine: Mapping[str, Any], declaration: Declaration) -> None:
    """Check against the functions of a declared model: their code, and that of their modules, names what they read.

    Args:
        engine: the job's table.

    Raises:
        SettingsError: a key that they do not read.
    """
    functions = [*declaration.mappers.values(), declaration.input_processor, declaration.dummy_data]
    codes = list(_codes(sys.modules[name] for name in {f.__module__ for f in functions if f is not None}))
    known = _names_in(codes) if any(_READERS & set(code.co_names) for code in codes) else set()
    reason = f"no function of {declaration.model_cls.__name__} reads it"
    _refuse_device(engine, reason)
    _refuse_unknown(engine.get("mm_processor_kwargs") or {}, known, reason)


def check_processor(engine: Mapping[str, Any], processor: Any) -> None:
    """Check against vLLM's processor for a model.

    Args:
        engine: the job's table.
        processor: a BaseMultiModalProcessor of vLLM.

    Raises:
        SettingsError: a key that neither it nor the transformers processor behind it takes; lists that vLLM fails on.
    """
    given, info = engine.get("mm_processor_kwargs") or {}, processor.info
    if not given:
        return
    _refuse_nested_lists(given)
    hf_processor = info.get_hf_processor()
    known = _SCOPES | _arguments_of(hf_processor)
    for part in ("image_processor", "video_processor", "feature_extractor", "tokenizer"):
        known |= _arguments_of(getattr(hf_processor, part, None))
    own = [cls for kind in (type(info), type(processor)) for cls in kind.__mro__ if not _is_of_base(cls)]
    known |= _names_in(_codes_of_classes(own)) | {"device"}
    flat = {key: value for key, value in given.items() if key not in _SCOPES}
    for scope in _SCOPES & given.keys():
        inner = given[scope]
        flat |= {f"{scope}.{key}": value for key, value in inner.items()} if isinstance(inner, Mapping) else {}
    _refuse_unknown(flat, known, f"{type(hf_processor).__name__} does not read it", known)


def _refuse_nested_lists(given: Mapping[str, Any]) -> None:
    """vLLM keeps processors by their arguments, and fails on those that cannot be a key."""
    for key, value in given.items():
        if isinstance(value, list) and any(isinstance(part, list | Mapping) for part in value):
            raise SettingsError(
                f"engine.mm_processor_kwargs.{key} is a list of lists or tables, on which vLLM fails; set "
                f"engine.mm_processor_kwargs.images_kwargs.{key}, or write it into the checkpoint"
            )


def check_no_processor(engine: Mapping[str, Any]) -> None:
    """Check for a model that takes text only.

    Raises:
        SettingsError: there are settings of a processor.
    """
    reason = "the model takes text only"
    _refuse_device(engine, reason)
    _refuse_unknown(engine.get("mm_processor_kwargs") or {}, set(), reason)


def _refuse_device(engine: Mapping[str, Any], reason: str) -> None:
    if engine.get("mm_processor_device", "auto") != "auto":
        raise SettingsError(f"engine.mm_processor_device does nothing: {reason}; remove it")


def _refuse_unknown(given: Mapping[str, Any], known: set[str], reason: str, suggested: Iterable[str] = ()) -> None:
    for key in given:
        name = key.rpartition(".")[2]
        if name not in known:
            hint = did_you_mean(name, suggested) or "; remove it"
            raise SettingsError(f"engine.mm_processor_kwargs.{key} does nothing: {reason}{hint}")


def _arguments_of(part: Any) -> set[str]:
    """What a processor of transformers', or a part of one, takes: by signatures, typed kwargs and its own config."""
    if part is None:
        return set()
    names = {name for name in vars(part) if not name.startswith("_")}
    for kwargs in (getattr(part, "valid_kwargs", None), getattr(part, "valid_processor_kwargs", None)):
        names |= _annotated(kwargs)
    for cls in type(part).__mro__[:-1]:
        for method in ("__init__", "__call__", "preprocess", "_preprocess"):
            function = vars(cls).get(method)
            if isinstance(function, FunctionType):
                names |= set(inspect.signature(function).parameters)
    return names - {"self", "args", "kwargs"}


def _annotated(kwargs: Any) -> set[str]:
    """The keys of a TypedDict of kwargs, and of those that it groups by scope."""
    hints = getattr(kwargs, "__annotations__", {})
    inner = (getattr(hints[scope], "__annotations__", {}) for scope in _SCOPES & hints.keys())
    return set(hints).union(*inner)


def _is_of_base(cls: type) -> bool:
    return cls.__module__.startswith(("vllm.multimodal.", "abc", "builtins", "typing"))


def _codes(modules: Iterable[ModuleType]) -> Iterator[CodeType]:
    for module in modules:
        if module.__name__.startswith("run_batch."):  # the default mappers read the checkpoint's files alone
            continue
        members = [m for m in vars(module).values() if getattr(m, "__module__", None) == module.__name__]
        yield from (m.__code__ for m in members if isinstance(m, FunctionType))
        yield from _codes_of_classes(m for m in members if isinstance(m, type))


def _codes_of_classes(classes: Iterable[type]) -> Iterator[CodeType]:
    for cls in classes:
        for member in vars(cls).values():
            function = getattr(member, "__func__", getattr(member, "fget", member))
            if isinstance(function, FunctionType):
                yield function.__code__


def _names_in(codes: Iterable[CodeType]) -> set[str]:
    """Texts in some code and in the functions inside it, and names of arguments: what may be read out of kwargs."""
    names: set[str] = set()
    pending = list(codes)
    while pending:
        code = pending.pop()
        names |= set(code.co_varnames[: code.co_argcount + code.co_kwonlyargcount])
        names |= {text for text in code.co_consts if isinstance(text, str)}
        names |= {
            t for found in code.co_consts if isinstance(found, tuple | frozenset) for t in found if isinstance(t, str)
        }
        pending += [inner for inner in code.co_consts if isinstance(inner, CodeType)]
    return names
