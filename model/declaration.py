"""What a model class declares: its input mappers, input processor and dummy data.

These are the values that cross the border between a model's plain functions and the rest of the product. Nothing
here knows vLLM's processor classes, jobs or files.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # torch takes a second to import, and the worker processes are started before that
    import torch
    from vllm.multimodal.processing import InputProcessingContext

PIXELS = "image_pixels"
FEATURES = "image_features"


class RowError(Exception):
    """This row cannot be mapped; the job goes on without it.

    A mapper or input processor may raise it for an input that it cannot take. Any other exception is a bug of the
    mapper and stops the job.

    Args:
        kind: stable name that users filter on, e.g. `image_decode`.
        message: what is wrong with this row.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind, self.message = kind, message


class DeclarationError(Exception):
    """A model's declaration does not hold: the message names the model, the function and what to change."""


@dataclass(frozen=True, slots=True)
class PlaceholderRange:
    """Where one image's placeholder tokens stand in an expanded prompt.

    Attributes:
        offset: index of the first token of the run.
        length: number of tokens in the run.
        is_embed: per token of the run, whether an image feature takes its place; None when all of them do.
    """

    offset: int
    length: int
    is_embed: tuple[bool, ...] | None = None

    @property
    def num_features(self) -> int:
        return self.length if self.is_embed is None else sum(self.is_embed)


@dataclass(frozen=True, slots=True)
class MappedItem:
    """One image after its input mapper.

    Attributes:
        modality: `image`.
        tensors: the model's keyword tensors for this item, without the batch dimension.
        content_hash: equal for equal tensors only; by it vLLM knows what it has encoded already.
        width, height: size in pixels of the decoded image before mapping; 0 for precomputed features.
    """

    modality: str
    tensors: "Mapping[str, torch.Tensor]"
    content_hash: str
    width: int = 0
    height: int = 0


@dataclass(frozen=True, slots=True)
class TokenizedPrompt:
    """What an input processor takes and gives back.

    Attributes:
        prompt_token_ids: on the way in, one placeholder token per image; on the way out, the expanded prompt.
        items: the prompt's images in order.
        placeholders: on the way out, one range per image, in order.
    """

    prompt_token_ids: list[int]
    items: tuple[MappedItem, ...] = ()
    placeholders: tuple[PlaceholderRange, ...] = ()

    def expand(
        self, placeholder_token_id: int, runs: Sequence[Sequence[int]], embed_token_id: int | None = None
    ) -> "TokenizedPrompt":
        """Replace the k-th placeholder token by the k-th run of tokens.

        Args:
            placeholder_token_id: the token that stands for one image in the prompt.
            runs: for each image, the tokens that take the placeholder's place.
            embed_token_id: where given, only this token's positions in a run receive image features (a run with
                image-break and image-end tokens); else all positions do.

        Raises:
            RowError: `placeholders`, when the prompt has more or fewer placeholders than images.
        """
        count = self.prompt_token_ids.count(placeholder_token_id)
        if count != len(runs):
            raise RowError("placeholders", f"the prompt has {count} image placeholders, the row has {len(runs)} images")
        token_ids: list[int] = []
        ranges: list[PlaceholderRange] = []
        remaining = iter(runs)
        for token_id in self.prompt_token_ids:
            if token_id != placeholder_token_id:
                token_ids.append(token_id)
                continue
            run = next(remaining)
            is_embed = None if embed_token_id is None else tuple(t == embed_token_id for t in run)
            ranges.append(PlaceholderRange(len(token_ids), len(run), is_embed))
            token_ids.extend(run)
        return replace(self, prompt_token_ids=token_ids, placeholders=tuple(ranges))


@dataclass(frozen=True, slots=True)
class DummyData:
    """The largest inputs that a model can get, for memory profiling.

    Attributes:
        prompt_token_ids: tokens before expansion, one placeholder token per image.
        images: PIL images (pixels) or tensors of shape (features, hidden size), one per placeholder.
    """

    prompt_token_ids: list[int] = field(default_factory=list)
    images: list[Any] = field(default_factory=list)


def array_mapper(mapper: "InputMapper") -> "InputMapper":
    """Mark a pixel mapper as one that takes images as uint8 arrays (height, width, 3) instead of PIL images.

    That is how images come out of the decoder: it saves a copy of each.
    """
    mapper.takes_arrays = True  # type: ignore[attr-defined]
    return mapper


InputMapper = Callable[["InputProcessingContext", list[Any]], Mapping[str, "torch.Tensor | list[torch.Tensor]"]]
InputProcessor = Callable[["InputProcessingContext", list[TokenizedPrompt]], list[TokenizedPrompt]]
DummyDataFactory = Callable[["InputProcessingContext", int, Mapping[str, int]], DummyData]


@dataclass(slots=True)
class Declaration:
    """All that one model class has declared so far (decorators add to it one by one).

    Attributes:
        mappers: input mappers by what they take: `image_pixels`, `image_features`, `image`.
        own: what the class itself declares; the rest is inherited from its base class.
    """

    model_cls: type
    mappers: dict[str, InputMapper] = field(default_factory=dict)
    input_processor: InputProcessor | None = None
    dummy_data: DummyDataFactory | None = None
    own: set[str] = field(default_factory=set)

    def claim(self, what: str) -> None:
        """Note that the class itself declares `what`.

        Raises:
            DeclarationError: it does so for the second time.
        """
        if what in self.own:
            raise DeclarationError(f"{self.model_cls.__name__} has two {what}; keep one")
        self.own.add(what)

    def mapper_for(self, kind: str) -> tuple[str, InputMapper]:
        """The name and the mapper for images of one kind: PIXELS or FEATURES.

        Raises:
            RowError: `image_unsupported`, where the model takes the other kind.
            DeclarationError: the model declares no mapper at all.
        """
        for key in (kind, "image"):
            if key in self.mappers:
                return key, self.mappers[key]
        message = (
            f"{self.model_cls.__name__} declares no input mapper for {kind}; it declares: "
            f"{', '.join(sorted(self.mappers)) or 'none'}. Add @MULTIMODAL_REGISTRY."
            f"register_{kind.rstrip('s')}_input_mapper() to the class"
        )
        # What a row holds decides here, so one row must not stop a job of others.
        raise RowError("image_unsupported", message) if self.mappers else DeclarationError(message)


_DECLARATIONS: dict[type, Declaration] = {}


def declare(model_cls: type) -> Declaration:
    """The class's own declaration, to add to; it starts as what the nearest declared base class declares."""
    if model_cls not in _DECLARATIONS:
        base = declaration_of(model_cls) or Declaration(model_cls)
        _DECLARATIONS[model_cls] = replace(base, model_cls=model_cls, mappers=dict(base.mappers), own=set())
    return _DECLARATIONS[model_cls]


def declaration_of(model_cls: type) -> Declaration | None:
    """What `model_cls` or its nearest declared base class declares; None for a class with vLLM's own processor."""
    return next((_DECLARATIONS[cls] for cls in model_cls.__mro__ if cls in _DECLARATIONS), None)


def declared_classes() -> list[type]:
    """All model classes declared in this process, in order of declaration."""
    return list(_DECLARATIONS)
