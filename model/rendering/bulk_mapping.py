"""Decides whether the rows of a model that vLLM ships go through a bulk mapper or through vLLM's own processor.

They go through a bulk mapper only if it gives what vLLM's processor gives, to the last bit, for images that both map
when the model is loaded. Anything else that a checkpoint or a job may have is left to vLLM's processor.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from vllm.multimodal.processing import InputProcessingContext

from run_batch.model.checkpoint.missing_package import missing_package
from run_batch.model.declaration import Declaration, RowError
from run_batch.model.mappers.processor_facts import ProcessorFacts, UnknownSettings
from run_batch.model.mappers.shipped import class_name, declare_shipped, has_bulk_mapper
from run_batch.model.rendering.declared_renderer import DeclaredRenderer
from run_batch.model.rendering.engine_input import EngineInput
from run_batch.model.rendering.job_faults import describe, root_of
from run_batch.model.rendering.vllm_expansion import VllmExpansion
from run_batch.model.rendering.vllm_renderer import VllmRenderer

# (width, height): one that most models enlarge, one that they make smaller, or fit to their patches, and one that is
# long enough for the crops of its parts.
_TEST_SIZES = ((61, 37), (333, 215), (270, 560))


class NoBulkMapper(Exception):
    """A model that goes through vLLM's own processor; the message says why."""


def bulk_renderer(
    context: InputProcessingContext, processor: Any, model_cls: type, reference: VllmRenderer, placeholder: str | None
) -> DeclaredRenderer:
    """The renderer of a model's bulk mapper.

    Args:
        processor: a BaseMultiModalProcessor of vLLM.
        reference: the renderer with that processor.
        placeholder: the text that stands for an image in a prompt.

    Raises:
        NoBulkMapper: there is none, or it does not give what `reference` gives.
    """
    hf_processor = _hf_processor(processor)
    image_processor = getattr(hf_processor, "image_processor", None)
    token = getattr(hf_processor, "image_token_id", getattr(hf_processor, "ctx_image_token_id", None))
    if token is None or placeholder is None or not has_bulk_mapper(type(image_processor)):
        raise NoBulkMapper(
            f"there is no bulk mapper for {_described(image_processor)} in {type(hf_processor).__name__}"
        )
    prompt, images = _test_prompt(processor, placeholder), list(_test_images())
    with _recorded_settings(image_processor) as settings, _failures_told("vLLM's processor fails on a test image"):
        expected = _render(reference, prompt, images)
    if not settings:
        raise NoBulkMapper(f"vLLM does not call {_described(image_processor)} as its bulk mapper expects")
    facts = ProcessorFacts(
        class_name(type(image_processor)), settings, token, context.model_config.dtype, VllmExpansion(processor)
    )
    with _failures_told("the bulk mapper fails on a test image"):
        bulk = DeclaredRenderer(context, _declared(model_cls, facts))
        given = _render(bulk, prompt, images)
    for wanted, found in zip(expected, given, strict=True):
        if isinstance(wanted, RowError):
            raise NoBulkMapper(f"vLLM's processor does not map a test image: {wanted}")
        if isinstance(found, RowError) or not _are_equal(found, wanted):
            raise NoBulkMapper("the bulk mapper gives other tensors or tokens than vLLM's processor for a test image")
    return bulk


def _hf_processor(processor: Any) -> Any:
    """The processor of transformers behind vLLM's; its image processor tells the family."""
    with _failures_told("it has no processor of transformers"):
        return processor.info.get_hf_processor()


@contextlib.contextmanager
def _failures_told(failure: str) -> Iterator[None]:
    """Leave a model to vLLM's processor where something fails that a job may never need, except for lack of a package.

    Its rows have images, and fail as they do with vLLM's processor, or they have none, and do not fail.
    """
    try:
        yield
    except NoBulkMapper:
        raise
    except Exception as error:
        if missing_package(error) is not None:
            raise
        raise NoBulkMapper(f"{failure}: {describe(root_of(error))}") from error


def _described(image_processor: Any) -> str:
    return "a model without an image processor" if image_processor is None else type(image_processor).__name__


def _declared(model_cls: type, facts: ProcessorFacts) -> Declaration:
    try:
        return declare_shipped(model_cls, facts)
    except UnknownSettings as error:
        raise NoBulkMapper(f"{facts.image_processor.rpartition('.')[2]}: {error}") from None


@contextlib.contextmanager
def _recorded_settings(image_processor: Any) -> Iterator[dict[str, Any]]:
    """The settings that transformers resolves for its image processor, once it has been called inside this context.

    An image processor of vLLM's has them as attributes.
    """
    settings: dict[str, Any] = {}
    preprocess = getattr(image_processor, "_preprocess", None)
    if preprocess is None:
        yield dict(vars(image_processor))
        return

    def record(images: Any, *args: Any, **kwargs: Any) -> Any:
        settings.update(kwargs)
        return preprocess(images, *args, **kwargs)

    image_processor._preprocess = record
    try:
        yield settings
    finally:
        del image_processor._preprocess


def _test_prompt(processor: Any, placeholder: str) -> list[int]:
    """A prompt with an image between text."""
    tokens: list[int] = processor.info.get_tokenizer().encode(f"Look: {placeholder} what?", add_special_tokens=False)
    return tokens


def _test_images() -> Iterator[Image.Image]:
    """Noise, in which each pixel counts; the same each time."""
    random = np.random.default_rng(0)
    for width, height in _TEST_SIZES:
        yield Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))


def _render(
    renderer: VllmRenderer | DeclaredRenderer, prompt: list[int], images: Sequence[Image.Image]
) -> list[EngineInput | RowError]:
    """Render each image alone."""
    return renderer.render([list(prompt) for _ in images], [[image] for image in images])


def _are_equal(one: EngineInput, other: EngineInput) -> bool:
    """Whether the engine takes the same for both: tokens, places of images, tensors and how they are put together."""
    return (
        one["prompt_token_ids"] == other["prompt_token_ids"]
        and _places(one) == _places(other)
        and _tensors(one) == _tensors(other)
    )


def _places(rendered: Mapping[str, Any]) -> list[tuple[int, int, list[bool] | None]]:
    return [
        (place.offset, place.length, None if place.is_embed is None else place.is_embed.tolist())
        for place in rendered["mm_placeholders"]["image"]
    ]


def _tensors(rendered: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the model would get for each image alone."""
    return [
        {name: (e.field.keep_on_cpu, _bytes(e.field.reduce_data([e]))) for name, e in item.items()}
        for item in rendered["mm_kwargs"]["image"]
    ]


def _bytes(tensor: torch.Tensor) -> tuple[torch.dtype, tuple[int, ...], bytes]:
    values = tensor.contiguous().reshape(-1).view(torch.uint8)
    return tensor.dtype, tuple(tensor.shape), values.numpy().tobytes()
