"""Calls the functions that a model's author declares, and checks that what they return keeps their contract."""

import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from vllm.multimodal.processing import InputProcessingContext

from run_batch.model.declaration import (
    FEATURES,
    PIXELS,
    Declaration,
    DeclarationError,
    InputMapper,
    RowError,
    TensorLayout,
    TokenizedPrompt,
    place_of,
)
from run_batch.model.images.decode import DecodedImage
from run_batch.model.mappers.shipped import is_bulk_mapper
from run_batch.model.rendering.finite_values import FiniteCheck
from run_batch.model.rendering.kept_text import first_change
from run_batch.model.rendering.vllm_expansion import VllmExpansion

Tensors = Mapping[str, torch.Tensor | Sequence[torch.Tensor]]


class DeclaredFunctions:
    """Calls one model's input mappers and input processor, each with many inputs."""

    def __init__(self, context: InputProcessingContext, declaration: Declaration) -> None:
        self._context = context
        self._declaration = declaration
        self._finite = FiniteCheck()

    def map_pixels(self, images: Sequence[DecodedImage]) -> Tensors:
        """The model's keyword tensors, each with one entry per image, from images given as pixels.

        Raises:
            RowError: the mapper refuses an image, or the model takes no pixels.
            DeclarationError: the mapper fails or breaks its contract, or the model declares none.
        """
        name, mapper = self._declaration.mapper_for(PIXELS)
        takes_arrays = getattr(mapper, "takes_arrays", False)
        return self._map(name, mapper, [image.pixels if takes_arrays else image.to_pil() for image in images])

    def map_features(self, images: Sequence[torch.Tensor]) -> Tensors:
        """The same from images given as precomputed features, tensors of shape (features, hidden size).

        Raises:
            RowError: the mapper refuses an image, or the model takes no features.
            DeclarationError: the mapper fails or breaks its contract, or the model declares none.
        """
        return self._map(*self._declaration.mapper_for(FEATURES), images)

    def _map(self, name: str, mapper: InputMapper, items: Sequence[Any]) -> Tensors:
        tensors = self._call(f"input mapper for {name}", mapper, list(items))
        where = self._where(f"input mapper for {name}", mapper)
        _check_batched(where, tensors, len(items))
        _check_layout(where, tensors, self._declaration.layouts.get(name))
        self._finite.check(where, items, tensors)
        return tensors

    def expand(self, prompts: Sequence[TokenizedPrompt]) -> list[TokenizedPrompt]:
        """The prompts with their placeholder tokens expanded by the input processor, if the model declares one.

        Raises:
            RowError: the input processor refuses a prompt, or expands an image of precomputed features to another
                number of placeholder tokens.
            DeclarationError: the input processor fails or breaks its contract.
        """
        processor = self._declaration.input_processor
        expanded = list(prompts) if processor is None else self._call("input processor", processor, list(prompts))
        if isinstance(processor, VllmExpansion):  # whose ranges may share a token: vLLM merges lines between images
            return list(expanded)
        where = self._where("input processor", processor)
        _check_expanded(where, prompts, expanded)
        if processor is not None and not self._declaration.changes_text:
            for before, after in zip(prompts, expanded, strict=True):
                self._check_text(where, before.prompt_token_ids, after)
        return list(expanded)

    def _check_text(self, where: str, before: list[int], after: TokenizedPrompt) -> None:
        change = first_change(before, after.prompt_token_ids, after.placeholders)
        if change is not None:
            raise DeclarationError(
                f"{where} changes the prompt's text: token {change[0]} of the prompt is "
                f"{self._token(before, change[0])}, and token {change[1]} of what it gave, in the same place, is "
                f"{self._token(after.prompt_token_ids, change[1])}. Tokens outside the placeholder ranges must stay; "
                "if the change is meant, declare it: register_input_processor(..., changes_text=True)"
            )

    def _token(self, token_ids: Sequence[int], position: int) -> str:
        if position >= len(token_ids):
            return "missing"
        tokenizer = getattr(self._context, "tokenizer", None)
        text = "" if tokenizer is None else f" ({tokenizer.decode([token_ids[position]])!r})"
        return f"{token_ids[position]}{text}"

    def _where(self, what: str, function: Callable[..., Any] | None) -> str:
        place = "" if function is None else f" ({place_of(function)})"
        return f"{self._declaration.model_cls.__name__}'s {what}{place}"

    def _call(self, what: str, function: Callable[..., Any], argument: Any) -> Any:
        """Call a function of the author's; an exception in it becomes a DeclarationError with its name and place."""
        try:
            return function(self._context, argument)
        except (RowError, DeclarationError):
            raise
        except Exception as error:
            if self._declaration.model_cls.__module__.startswith("run_batch.") or _is_shipped(function):
                raise
            raise failure(f"{self._declaration.model_cls.__name__}'s {what}", function, error) from error


def _is_shipped(function: Callable[..., Any]) -> bool:
    """Whether a bug in a function is no plugin's."""
    return is_bulk_mapper(function) or isinstance(function, VllmExpansion)


def failure(where: str, function: Callable[..., Any], error: Exception) -> DeclarationError:
    """The error of a job whose plugin's function, called from the caller's frame, raised `error`."""
    frames = traceback.extract_tb(error.__traceback__)
    # Ours, then the function that was called, then perhaps what it called in libraries. A call that does not fit the
    # function's signature fails in ours.
    place = f"{frames[1].filename}, line {frames[1].lineno}" if len(frames) > 1 else place_of(function)
    message = " ".join(str(error).split())
    return DeclarationError(f"{where} failed: {type(error).__name__}: {message} ({place})")


def _check_batched(where: str, tensors: Any, count: int) -> None:
    if not isinstance(tensors, Mapping) or not tensors:
        raise DeclarationError(
            f"{where} must return keyword tensors (a mapping of name to tensor), found {type(tensors).__name__}"
        )
    for name, values in tensors.items():
        if isinstance(values, torch.Tensor) and values.ndim == 0:
            raise DeclarationError(f"{where} gave {name} without a batch dimension; stack one entry per item")
        entries_ok = isinstance(values, torch.Tensor) or (
            isinstance(values, list | tuple) and all(isinstance(v, torch.Tensor) for v in values)
        )
        if not entries_ok:
            raise DeclarationError(
                f"{where} gave {name} as {type(values).__name__}; expected a tensor or a list of tensors"
            )
        if len(values) != count:
            raise DeclarationError(
                f"{where} gave {len(values)} entries in {name} for {count} items; the first dimension must be "
                "the items of the batch"
            )


def _check_layout(where: str, tensors: Tensors, layout: TensorLayout | None) -> None:
    """Refuse a layout that names what the mapper does not give, or has vLLM concatenate what has no dimension."""
    for option, names in () if layout is None else (("flat", layout.flat), ("on_cpu", layout.on_cpu)):
        for name in sorted(names - tensors.keys()):
            raise DeclarationError(
                f"{where} is registered with {option} = {name!r}, but it gives {', '.join(sorted(tensors))}"
            )
    for name in sorted(layout.flat if layout is not None else ()):
        if any(entry.ndim == 0 for entry in tensors[name]):
            raise DeclarationError(
                f"{where} gave numbers in {name}, which is registered as flat; give a tensor with a first dimension "
                "for each image"
            )


def _check_expanded(where: str, prompts: Sequence[TokenizedPrompt], expanded: Any) -> None:
    if not isinstance(expanded, list | tuple) or not all(isinstance(p, TokenizedPrompt) for p in expanded):
        raise DeclarationError(f"{where} must return a list of TokenizedPrompt; use TokenizedPrompt.expand")
    if len(expanded) != len(prompts):
        raise DeclarationError(f"{where} took {len(prompts)} prompts and gave {len(expanded)} back")
    for before, after in zip(prompts, expanded, strict=True):
        if len(after.placeholders) != len(before.items):
            raise DeclarationError(
                f"{where} gave {len(after.placeholders)} placeholder ranges for a prompt with "
                f"{len(before.items)} images; give one range per image (TokenizedPrompt.expand does)"
            )
        _check_ranges(where, after)
        _check_precomputed(after)


def _check_ranges(where: str, prompt: TokenizedPrompt) -> None:
    end = 0
    for placeholder in prompt.placeholders:
        if placeholder.length < 1 or placeholder.offset < end:
            raise DeclarationError(f"{where} gave placeholder ranges that are empty, overlap or are out of order")
        end = placeholder.offset + placeholder.length
    if end > len(prompt.prompt_token_ids):
        raise DeclarationError(
            f"{where} gave a placeholder range that ends at token {end} of a prompt of {len(prompt.prompt_token_ids)}"
        )


def _check_precomputed(prompt: TokenizedPrompt) -> None:
    """Refuse a row whose precomputed features are more or fewer than their placeholder tokens."""
    for item, placeholder in zip(prompt.items, prompt.placeholders, strict=True):
        features = item.tensors.get("image_features")
        if features is not None and len(features) != placeholder.num_features:
            raise RowError(
                "placeholders",
                f"the prompt has {placeholder.num_features} placeholder tokens for an image with {len(features)} "
                "features",
            )
