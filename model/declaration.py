"""What model classes declare: input mappers, input processor and dummy data, and the values that these take and give.

Nothing here knows vLLM's processor classes, jobs or files.
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # torch takes a second to import, and the worker processes are started before that
    import torch
    from vllm.multimodal.processing import InputProcessingContext

PIXELS = "image_pixels"
FEATURES = "image_features"


class RowError(Exception):
    """A row that cannot be mapped; the job goes on without it.

    Mappers and input processors raise it for an input that they cannot take. Any other exception counts as a bug in
    them and stops the job.

    Args:
        kind: stable name that users filter on, e.g. `image_decode`.
        message: what is wrong with this row.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind, self.message = kind, message


class JobFault(Exception):
    """A failure that no row has caused: of the model's processor, of a library, or of the machine."""


class DeclarationError(Exception):
    """A wrong declaration; the message names the model, the function and what to change."""


@dataclass(frozen=True, slots=True)
class PlaceholderRange:
    """The run of placeholder tokens of one image in an expanded prompt.

    Attributes:
        offset: index of the first token of the run.
        length: number of tokens in the run.
        is_embed: for each token of the run, whether an image feature replaces it; None where all are replaced.
    """

    offset: int
    length: int
    is_embed: tuple[bool, ...] | None = None

    @property
    def num_features(self) -> int:
        """Number of image features that the run takes."""
        return self.length if self.is_embed is None else sum(self.is_embed)


@dataclass(frozen=True, slots=True)
class MappedItem:
    """One image as its input mapper gives it.

    Attributes:
        modality: `image`.
        tensors: the model's keyword tensors for this item, without the batch dimension.
        content_hash: equal only for equal tensors; the key in vLLM's encoder cache and prefix cache.
        width, height: size in pixels of the decoded image before mapping; 0 for precomputed features.
    """

    modality: str
    tensors: "Mapping[str, torch.Tensor]"
    content_hash: str
    width: int = 0
    height: int = 0


@dataclass(frozen=True, slots=True)
class TokenizedPrompt:
    """A tokenized prompt with its mapped images: what an input processor takes and gives back.

    Attributes:
        prompt_token_ids: as input, with one placeholder token per image; as output, the expanded prompt.
        items: the prompt's images in order.
        placeholders: as output, one range per image, in order.
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
            embed_token_id: where given, image features replace only this token in a run (one that also has
                image-break or image-end tokens); else they replace every token.

        Returns:
            A copy with the expanded token ids and one range per image.

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
            is_embed = None if embed_token_id is None else tuple(map(embed_token_id.__eq__, run))
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

    The decoder gives such arrays, so this saves a copy of each image.
    """
    mapper.takes_arrays = True  # type: ignore[attr-defined]
    return mapper


def place_of(function: Callable[..., Any]) -> str:
    """Where a function, method, partial or callable object of a plugin is defined, for messages: `file, line 12`."""
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function)
    if not hasattr(function, "__code__"):
        function = getattr(function, "__func__", getattr(type(function), "__call__"))  # noqa: B004, B009
    code = getattr(function, "__code__", None)
    return f"{code.co_filename}, line {code.co_firstlineno}" if code is not None else "not written in Python"


@dataclass(frozen=True, slots=True)
class Normalization:
    """How pixels are normalized: (v / divisor - mean) / std in float32, then in the model's dtype.

    Attributes:
        mean, std: per channel; float32 holds them exactly.
        divisor: of the bytes, 0 to 255.
        dtype: of the values that the model takes.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    divisor: float
    dtype: "torch.dtype"


@dataclass(frozen=True, slots=True)
class TensorLayout:
    """How vLLM puts the tensors of several images together before it passes them to the model.

    Attributes:
        flat: tensors that are concatenated along their first dimension; all others are stacked.
        on_cpu: tensors that stay in the CPU's memory; all others are copied to the model's device.
        shared: tensors that are the same for all images, which the model takes once.
        frames: how often the model takes each channel of the pixels in `flat` tensors, which hold it once.
        normalization: of the bytes of pixels, on the model's device.
        whole: masks without padding, (items, 0, height, width) without a value, int64 (items, height, width) of ones
            for the model.
        padded: tensors of tiles, of which the images of a row get equally many: tiles of zeros follow their own.
    """

    flat: frozenset[str] = frozenset()
    on_cpu: frozenset[str] = frozenset()
    shared: frozenset[str] = frozenset()
    frames: int = 1
    normalization: Normalization | None = None
    whole: frozenset[str] = frozenset()
    padded: frozenset[str] = frozenset()


InputMapper = Callable[["InputProcessingContext", list[Any]], Mapping[str, "torch.Tensor | list[torch.Tensor]"]]
InputProcessor = Callable[["InputProcessingContext", list[TokenizedPrompt]], list[TokenizedPrompt]]
DummyDataFactory = Callable[["InputProcessingContext", int, Mapping[str, int]], DummyData]


@dataclass(slots=True)
class Declaration:
    """All that one model class has declared so far; each decorator adds to it.

    Attributes:
        mappers: input mappers by what they take: `image_pixels`, `image_features` or `image` (either).
        layouts: of the tensors that each of them gives.
        changes_text: whether the input processor may change tokens outside the placeholder ranges.
        most_images: of a row, that the mappers take; None for any number.
        own: what the class itself declares; the rest is inherited from its base class.
    """

    model_cls: type
    mappers: dict[str, InputMapper] = field(default_factory=dict)
    input_processor: InputProcessor | None = None
    dummy_data: DummyDataFactory | None = None
    layouts: dict[str, TensorLayout] = field(default_factory=dict)
    changes_text: bool = False
    most_images: int | None = None
    own: set[str] = field(default_factory=set)

    def claim(self, what: str) -> None:
        """Record that the class itself declares `what`.

        Raises:
            DeclarationError: it has declared `what` already.
        """
        if what in self.own:
            raise DeclarationError(f"{self.model_cls.__name__} has two {what}; keep one")
        self.own.add(what)

    @property
    def layout(self) -> TensorLayout:
        """The layout of the tensors of all mappers."""
        layouts = self.layouts.values()
        return TensorLayout(
            frozenset().union(*(layout.flat for layout in layouts)),
            frozenset().union(*(layout.on_cpu for layout in layouts)),
            frozenset().union(*(layout.shared for layout in layouts)),
            max((layout.frames for layout in layouts), default=1),
            next((layout.normalization for layout in layouts if layout.normalization is not None), None),
            frozenset().union(*(layout.whole for layout in layouts)),
            frozenset().union(*(layout.padded for layout in layouts)),
        )

    def mapper_for(self, kind: str) -> tuple[str, InputMapper]:
        """The mapper for images of one kind, PIXELS or FEATURES, and the name that it is declared under.

        Raises:
            RowError: `image_unsupported`, where the model takes only the other kind.
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
        # Which mapper is needed depends on a row's image, so a model that lacks it fails the row, not the job.
        raise RowError("image_unsupported", message) if self.mappers else DeclarationError(message)


_DECLARATIONS: dict[type, Declaration] = {}


def declare(model_cls: type) -> Declaration:
    """The declaration of `model_cls` itself, made on the first call from what its nearest declared base declares."""
    if model_cls not in _DECLARATIONS:
        base = declaration_of(model_cls) or Declaration(model_cls)
        _DECLARATIONS[model_cls] = replace(
            base, model_cls=model_cls, mappers=dict(base.mappers), layouts=dict(base.layouts), own=set()
        )
    return _DECLARATIONS[model_cls]


def declaration_of(model_cls: type) -> Declaration | None:
    """What `model_cls` or its nearest declared base class declares; None for a class with vLLM's own processor."""
    return next((_DECLARATIONS[cls] for cls in model_cls.__mro__ if cls in _DECLARATIONS), None)


def declared_classes() -> list[type]:
    """All model classes declared in this process, in order of declaration."""
    return list(_DECLARATIONS)
