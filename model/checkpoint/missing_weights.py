"""Notices the weights of a declared model that its checkpoint lacks, before the model generates from anything else.

vLLM allocates its linear and embedding layers without giving them values, and does not check that a checkpoint fills
them; nor do the names that `load_weights` returns tell of a fused layer (`qkv_proj`) of which a part is missing. So
these layers get NaN when a declared model is built, and none may be left when its weights are loaded. Values count that
the model's own `__init__` writes into them, or that come by a tied parameter. Quantized layers are left alone.
"""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from run_batch.model.declaration import DeclarationError

_SHOWN = 5
# How many declared models are being built, and loaded, one within the other.
_depth = {"__init__": 0, "load_weights": 0}


def install_weight_check(model_cls: type) -> None:
    """Wrap `__init__` and `load_weights` of `model_cls` in the check, unless it inherits wrapped ones."""
    if not hasattr(model_cls, "load_weights"):
        return
    for name, wrap in (("__init__", _filling), ("load_weights", _checking)):
        method = getattr(model_cls, name)
        if not hasattr(method, "checks_weights"):
            checked = functools.wraps(method)(wrap(method))
            checked.checks_weights = True  # type: ignore[attr-defined]
            setattr(model_cls, name, checked)


@contextlib.contextmanager
def _entering(name: str) -> Iterator[bool]:
    """Whether this call is the outermost one: a declared model may be a part of another, or call its base class."""
    _depth[name] += 1
    try:
        yield _depth[name] == 1
    finally:
        _depth[name] -= 1


def _filling(init: Callable[..., None]) -> Callable[..., None]:
    def filling(self: Any, *args: Any, **kwargs: Any) -> None:
        with _entering("__init__") as is_outermost, _layers_get_nan() if is_outermost else contextlib.nullcontext():
            init(self, *args, **kwargs)

    return filling


def _checking(load_weights: Callable[..., Any]) -> Callable[..., Any]:
    def checking(self: Any, *args: Any, **kwargs: Any) -> Any:
        with _entering("load_weights") as is_outermost:
            loaded = load_weights(self, *args, **kwargs)
            if is_outermost:
                check_weights(self, loaded)
        return loaded

    return checking


@contextlib.contextmanager
def _layers_get_nan() -> Iterator[None]:
    """Give NaN to the parameters of all layers of vLLM's that are made meanwhile, right after their `__init__`."""
    from vllm.model_executor.layers.linear import ColumnParallelLinear, ReplicatedLinear, RowParallelLinear
    from vllm.model_executor.layers.vocab_parallel_embedding import ParallelLMHead, VocabParallelEmbedding

    classes = (ReplicatedLinear, ColumnParallelLinear, RowParallelLinear, VocabParallelEmbedding, ParallelLMHead)
    originals = {cls: cls.__dict__["__init__"] for cls in classes}

    def filling(original: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(original)
        def init(self: Any, *args: Any, **kwargs: Any) -> None:
            original(self, *args, **kwargs)
            for parameter in _own_parameters(self).values():
                parameter.data.fill_(torch.nan)

        return init

    for cls, original in originals.items():
        cls.__init__ = filling(original)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for cls, original in originals.items():
            cls.__init__ = original  # type: ignore[method-assign]


def _own_parameters(layer: nn.Module) -> dict[str, nn.Parameter]:
    """The floating point parameters of one of vLLM's layers, by name; none where it is quantized."""
    from vllm.model_executor.layers.linear import UnquantizedLinearMethod
    from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod

    if not isinstance(getattr(layer, "quant_method", None), UnquantizedLinearMethod | UnquantizedEmbeddingMethod):
        return {}
    parameters = layer.named_parameters(recurse=False)
    return {name: p for name, p in parameters if p.is_floating_point() and not p.is_meta}


def check_weights(model: nn.Module, loaded: set[str] | None) -> None:
    """Check a model whose weights have just been loaded.

    Args:
        loaded: the names of the parameters that are loaded, as the model's `load_weights` returns them; None where it
            does not tell, so that only layers of vLLM's can be checked.

    Raises:
        DeclarationError: weights are missing; the message names them.
    """
    in_layers = {id(p) for layer in model.modules() for p in _own_parameters(layer).values()}
    missing = {name for name, p in model.named_parameters() if id(p) in in_layers and _holds_nan(p)}
    if loaded is not None:
        missing |= _not_loaded(model, loaded, in_layers)
    if missing:
        shown = ", ".join(sorted(missing)[:_SHOWN])
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        raise DeclarationError(
            f"{type(model).__name__}: the checkpoint lacks weights, or parts of them, or has NaN in them: {shown}{more}"
        )


def _not_loaded(model: nn.Module, loaded: set[str], in_layers: set[int]) -> set[str]:
    """Parameters of plain torch modules that are not loaded by any of their names.

    Nothing is known of models with quantized layers: not all of their parameters are in a checkpoint.
    """
    if any(getattr(m, "quant_method", None) is not None and not _own_parameters(m) for m in model.modules()):
        return set()
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        if id(parameter) not in in_layers:
            names.setdefault(id(parameter), []).append(name)
    return {aliases[0] for aliases in names.values() if loaded.isdisjoint(aliases)}


def _holds_nan(parameter: torch.Tensor) -> bool:
    # The sum takes no memory, unlike a mask of the parameter's size.
    small = parameter.dtype in (torch.float16, torch.bfloat16)
    total = parameter.detach().sum(dtype=torch.float32 if small else None)
    return bool(total.isnan()) and bool(parameter.detach().isnan().any())
