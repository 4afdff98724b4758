"""Whether LoRA adapters fit the model that an engine has loaded.

vLLM loads what an adapter has for layers that it does not apply adapters to, and smaller weights than a layer's, and
generates as if all were well. So every weight of an adapter has to have its layer, in some worker, and its shape.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeAlias

from run_batch.model.checkpoint.adapters import AdapterError, read_adapter

# Inputs and outputs of a layer.
_Sizes: TypeAlias = tuple[int, int]

_SHOWN = 3
_NUMBER = re.compile(r"\d+")


def adapter_requests(engine: Any, paths: Mapping[str, str]) -> dict[str, Any]:
    """vLLM's LoRARequest of each adapter of a job; each is loaded once in all workers, and compared with the layers.

    Args:
        engine: vLLM's LLMEngine, whose workers have WorkerAdapters.
        paths: see ModelSettings.adapters.

    Raises:
        AdapterError: one does not fit.
    """
    from vllm.lora.request import LoRARequest

    requests = {}
    for number, (key, path) in enumerate(paths.items(), 1):
        folder = str(read_adapter(key, path).folder)
        requests[key] = LoRARequest(key, number, folder)
        misfit = _misfit_of(engine.collective_rpc("describe_adapter", args=(key, number, folder)))
        if misfit:
            raise AdapterError(f"{key} {folder} does not fit the model: {misfit}")
    return requests


def _misfit_of(answers: Sequence[Mapping[str, Any]]) -> str:
    """Why an adapter does not fit, of the answers of all workers; empty where it does."""
    problem = next((answer["problem"] for answer in answers if answer["problem"]), "")
    # With pipeline parallelism, each worker has some of the layers.
    found = {name for answer in answers for name in answer["found"]}
    lost = sorted({name for answer in answers for name in answer["names"]} - found)
    return problem or (_lost(lost, bool(found)) if lost else "")


def _lost(names: list[str], fits_some: bool) -> str:
    shown = ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
    text = f"vLLM applies no adapter to {shown}"
    if not fits_some:
        return f"{text}; is it of another model?"
    return (
        f"{text}. Of an image tower and its projector, it can with engine.enable_tower_connector_lora = true, for some "
        "models; or leave these weights out of the adapter"
    )


class WorkerAdapters:
    """What vLLM's worker processes can do besides, as its `worker_extension_cls`."""

    model_runner: Any

    def describe_adapter(self, name: str, number: int, path: str) -> dict[str, Any]:
        """Load an adapter, and compare it with the layers of this worker; nothing of it is kept.

        Returns:
            `names` of the layers that it has weights for, those of them `found` here, and the `problem` that makes it
            unusable, or an empty text.
        """
        from vllm.lora.request import LoRARequest

        loader = self.model_runner.lora_manager
        try:
            adapter = loader._load_adapter(LoRARequest(name, number, path))
        except Exception as error:  # vLLM's checks raise what they like
            return {"names": [], "found": [], "problem": f"{type(error).__name__}: {' '.join(str(error).split())}"}
        layers = _layers(loader._adapter_manager)
        found = [layer for layer in adapter.loras if layer in layers or ".experts" in layer]
        problems = (_misfit(layer, adapter.loras[layer], layers[layer]) for layer in found if layer in layers)
        unused = _unused(loader._adapter_manager, adapter.loras, layers)
        return {
            "names": [*(name for name in adapter.loras if name not in unused), *adapter.modules_to_save],
            "found": [*found, *adapter.modules_to_save],
            "problem": next(filter(None, problems), ""),
        }


def _layers(manager: Any) -> dict[str, _Sizes | None]:
    """The layers that adapters apply to, each with its numbers of inputs and outputs; None where they are not known."""
    layers: dict[str, _Sizes | None] = {}
    for name, wrapped in manager.modules.items():
        layer = getattr(wrapped, "base_layer", None)
        inputs, outputs = getattr(layer, "input_size", None), _outputs(layer)
        # What one layer computes here may be several in the checkpoint.
        parts = manager.packed_modules.get(name, [])
        sizes = dict(zip(parts, outputs, strict=True)) if len(parts) == len(outputs) else dict.fromkeys(parts, 0)
        for part, size in {**sizes, name: sum(outputs)}.items():
            layers[part] = (inputs, size) if inputs and size else None
    return layers


def _unused(manager: Any, names: Collection[str], layers: Collection[str]) -> set[str]:
    """The last layers of an image tower, which many models do not compute: adapters may have weights for them."""
    towers = tuple(getattr(getattr(manager, "mm_mapping", None), "tower_model", ()))
    kinds = {_NUMBER.sub("N", layer) for layer in layers}
    outside = (name for name in names if name not in layers and name.startswith(towers))
    return {name for name in outside if _NUMBER.sub("N", name) in kinds}


def _outputs(layer: Any) -> list[int]:
    """The sizes of a layer's parts; empty where they are not known."""
    if hasattr(layer, "total_num_kv_heads"):  # with many ranks, output_sizes counts copies of the same heads
        heads, kv_heads = layer.total_num_heads, layer.total_num_kv_heads
        return [heads * layer.head_size, kv_heads * layer.head_size, kv_heads * layer.v_head_size]
    sizes = getattr(layer, "output_sizes", None)
    size = getattr(layer, "output_size", None)
    return list(sizes) if sizes else [size] if size else []


def _misfit(name: str, weights: Any, sizes: _Sizes | None) -> str:
    """What is wrong with an adapter's weights for a layer; empty where they fit, or its sizes are not known."""
    if sizes is None or weights.lora_a is None or weights.lora_b is None:
        return "" if sizes is None else f"{name} lacks one of its two matrices"
    found = (weights.lora_a.shape[-1], weights.lora_b.shape[0])
    if found == sizes and weights.lora_a.shape[0] == weights.lora_b.shape[-1]:
        return ""
    return f"for {name}, the adapter has {found[0]} inputs and {found[1]} outputs, the layer {sizes[0]} and {sizes[1]}"
