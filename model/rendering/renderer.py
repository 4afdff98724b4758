"""Renders rows for one model, from prompt text and images to what vLLM's engine takes, many rows at once.

The images of a declared model go through its own functions (declared_renderer.py), those of any other model through
a bulk mapper where there is one (shipped_renderer.py), else through vLLM's processor for it (vllm_renderer.py); callers
need not know which.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from vllm.multimodal import MULTIMODAL_REGISTRY as VLLM_MULTIMODAL_REGISTRY
from vllm.multimodal.processing import InputProcessingContext
from vllm.tokenizers import cached_tokenizer_from_config

from run_batch.model.checkpoint.missing_package import missing_packages_named
from run_batch.model.checkpoint.sampling_checks import check_sampling
from run_batch.model.checkpoint.settings import ModelSettings, SettingsError, build_engine_args, build_model_config
from run_batch.model.declaration import RowError
from run_batch.model.images.row_image import RowImage
from run_batch.model.prompts.chat_template import ChatSettings, ChatTemplate
from run_batch.model.prompts.tokenizer import Piece, PromptTokenizer
from run_batch.model.rendering.bad_row_isolation import isolate_bad_rows
from run_batch.model.rendering.bulk_mapping import NoBulkMapper, bulk_renderer
from run_batch.model.rendering.declared_processor import DeclaredInfo
from run_batch.model.rendering.declared_renderer import DeclaredRenderer
from run_batch.model.rendering.engine_input import EngineInput
from run_batch.model.rendering.image_placeholders import ImagePlaceholders
from run_batch.model.rendering.loading import loading
from run_batch.model.rendering.placeholder_hint import placeholder_hint
from run_batch.model.rendering.processor_kwargs import check_declared, check_no_processor, check_processor
from run_batch.model.rendering.remembered_texts import remembering
from run_batch.model.rendering.row_video import EncodedVideo
from run_batch.model.rendering.shipped_renderer import ShippedRenderer
from run_batch.model.rendering.text_renderer import TextRenderer
from run_batch.model.rendering.vllm_renderer import RowVideos, VllmRenderer, text_bytes

if TYPE_CHECKING:
    from vllm.model_executor.models.interfaces import SupportsMultiModal

# Limits on a prompt's characters, higher than those of any prompt that fits into a model's context.
_PROMPT_CHARACTERS = 100_000
_CHARACTERS_PER_TOKEN = 64

# The text that stands for the image, or the video, of a number, counted from 1; None where the model needs none.
_Placeholder: TypeAlias = Callable[[int], str | None]


@dataclass(frozen=True, slots=True)
class Prompt:
    """The prompt of one row, before it is tokenized.

    Attributes:
        pieces: the prompt text, with one placeholder per image and per video in its trusted pieces.
        images: encoded images, PIL images, or tensors of precomputed features (features, hidden size).
        videos: encoded videos.
    """

    pieces: Sequence[Piece]
    images: Sequence[RowImage] = ()
    videos: Sequence[EncodedVideo] = ()


class _TokensRenderer(Protocol):
    """Renders rows after tokenization: a DeclaredRenderer, ShippedRenderer, VllmRenderer or TextRenderer.

    Attributes:
        adds_special_tokens: whether the tokenizer's own BOS and the like belong to a prompt that is no chat.
    """

    adds_special_tokens: bool

    def render(
        self, token_ids: Sequence[list[int]], images: Sequence[Sequence[RowImage]]
    ) -> list[EngineInput | RowError]: ...


@dataclass(frozen=True, slots=True)
class _Path:
    """How rows of a model are rendered.

    Attributes:
        placeholder: None for a model that takes no images.
        image_mapping: what maps its images, and why, for people; None for a model that takes none.
        videos: how rows have videos; None for a job without any.
    """

    renderer: _TokensRenderer
    placeholder: _Placeholder | None
    image_mapping: str | None
    videos: RowVideos | None = None


class Renderer:
    """Renders rows for one model.

    Building one reads the checkpoint's configs and tokenizer, not its weights.

    Args:
        scaled_jpeg_decoding: decode large JPEG files at a reduced size (see decode_image).
        has_videos: whether a column holds videos; None where messages may hold some.

    Attributes:
        image_mapping: what maps the model's images, and why, in one line; None for a model that takes none.
        video_mapping: what samples and maps rows' videos, in one line; None where there are none.
        has_videos: whether a column holds videos.
        takes_videos: whether rows can have any.

    Raises:
        SettingsError: the model's settings are wrong, it takes no videos, or it needs a package that is not installed.
        DeclarationError: scaled decoding is asked for, and the model maps pixels by a function of its own.
    """

    def __init__(
        self, settings: ModelSettings, scaled_jpeg_decoding: bool = False, has_videos: bool | None = False
    ) -> None:
        with missing_packages_named(settings.path):
            self._engine_args = build_engine_args(settings)
            self._model_config = build_model_config(settings, self._engine_args)
            with loading("tokenizer", settings):
                tokenizer = cached_tokenizer_from_config(self._model_config)
            path = _path_for(settings, self._model_config, tokenizer, scaled_jpeg_decoding, has_videos)
        key = "input.video_column" if has_videos else "engine.media_io_kwargs"
        if path.videos is None and (has_videos or settings.engine.get("media_io_kwargs")):
            raise SettingsError(f"{key}: {settings.path} takes no videos; remove the key")
        self.has_videos, self.takes_videos = bool(has_videos), path.videos is not None
        self._renderer, self._placeholder, self._videos = path.renderer, path.placeholder, path.videos
        self.image_mapping = path.image_mapping
        self.video_mapping = None if path.videos is None else f"vLLM's own processor, {path.videos.sampler.description}"
        self.tokenizer = tokenizer
        self._prompt_tokenizer = PromptTokenizer(tokenizer)
        self._is_pooling = settings.runner == "pooling"

    @property
    def max_model_len(self) -> int:
        """Largest number of tokens of prompt and generated text together."""
        return self._model_config.max_model_len

    @property
    def takes_images(self) -> bool:
        """Whether the model takes images besides text."""
        return self._placeholder is not None

    def image_placeholder(self, number: int) -> str | None:
        """The text that stands for one image in a prompt; None where the model needs none, or takes no images.

        Args:
            number: which of the prompt's images, from 1.
        """
        return None if self._placeholder is None else self._placeholder(number)

    def video_placeholder(self, number: int) -> str | None:
        """As `image_placeholder` for videos; None also where rows have none."""
        return None if self._videos is None else self._videos.placeholders.text(number)

    def check_sampling(self, sampling: Mapping[str, Any]) -> None:
        """Check a job's sampling settings against the model.

        Raises:
            SettingsError: vLLM would refuse each row.
        """
        if not self._is_pooling:
            check_sampling(self._engine_args, sampling, self._model_config, self.tokenizer)

    def chat_template(self, settings: ChatSettings) -> ChatTemplate:
        """The chat template of the job or the model.

        Raises:
            SettingsError: there is none, or it does not read what the job sets for it.
        """
        placeholders = (self.image_placeholder, self.video_placeholder)
        return ChatTemplate(self._model_config, self._prompt_tokenizer, *placeholders, settings)

    def render(self, prompts: Sequence[Prompt], add_special_tokens: bool = True) -> list[EngineInput | RowError]:
        """Tokenize and render all rows.

        Args:
            add_special_tokens: see PromptTokenizer.encode; some models never want them.

        Returns:
            For each row what the engine takes, or the RowError of a row that cannot be rendered.

        Raises:
            DeclarationError: a declared function breaks its contract.
        """
        add_special_tokens = add_special_tokens and self._renderer.adds_special_tokens
        encoded = self._encode([prompt.pieces for prompt in prompts], add_special_tokens)
        fitting = [p for p, ids in zip(prompts, encoded, strict=True) if not isinstance(ids, RowError)]
        token_ids = [ids for ids in encoded if not isinstance(ids, RowError)]
        videos = () if self._videos is None else ([prompt.videos for prompt in fitting],)
        render: Callable[..., list[EngineInput | RowError]] = self._renderer.render
        rendered = iter(render(token_ids, [prompt.images for prompt in fitting], *videos))
        return [ids if isinstance(ids, RowError) else self._check_length(next(rendered)) for ids in encoded]

    def _encode(self, prompts: Sequence[Sequence[Piece]], add_special_tokens: bool) -> list[list[int] | RowError]:
        """Token ids of each prompt, or its RowError."""
        # Tokenizing a prompt that cannot fit may take a worker minutes and gigabytes.
        limit = max(_PROMPT_CHARACTERS, _CHARACTERS_PER_TOKEN * self.max_model_len)
        lengths = [sum(len(piece.text) for piece in prompt) for prompt in prompts]
        short = [prompt for prompt, length in zip(prompts, lengths, strict=True) if length <= limit]
        encode = partial(self._prompt_tokenizer.encode, add_special_tokens=add_special_tokens)
        encoded = iter(isolate_bad_rows(encode, short))
        return [
            next(encoded)
            if length <= limit
            else RowError("prompt_too_long", f"{length:,} characters; the limit for this model is {limit:,}")
            for length in lengths
        ]

    def _check_length(self, mapped: EngineInput | RowError) -> EngineInput | RowError:
        if isinstance(mapped, RowError):
            return mapped
        length = len(mapped["prompt_token_ids"])
        if length == 0:
            return RowError("prompt_empty", "the prompt has no tokens")
        if length < self.max_model_len + self._is_pooling:
            return mapped
        room = f"{self.max_model_len}" if self._is_pooling else f"{self.max_model_len - 1} and one generated token"
        return RowError(
            "prompt_too_long",
            f"{length} prompt tokens with image tokens; engine.max_model_len {self.max_model_len} leaves room "
            f"for {room}",
        )


def _path_for(
    settings: ModelSettings, model_config: Any, tokenizer: Any, scaled_jpeg_decoding: bool, has_videos: bool | None
) -> _Path:
    """The path that the rows of a model take; without videos where the model takes none."""
    if not model_config.is_multimodal_model:
        check_no_processor(settings.engine)
        return _text_path(settings)
    from vllm.model_executor.model_loader import get_model_architecture

    with loading("processor", settings):
        own = remembering(tokenizer, text_bytes())
        processor = VLLM_MULTIMODAL_REGISTRY.create_processor(model_config, tokenizer=own)
        model_cls, _ = get_model_architecture(model_config)
    context = InputProcessingContext(model_config, tokenizer)
    if isinstance(processor.info, DeclaredInfo):
        declaration = processor.info.declaration
        _refuse_mapper(settings, f"{model_cls.__name__} declares its own input mappers")
        check_declared(settings.engine, declaration)
        hint = placeholder_hint(tokenizer, model_cls.get_placeholder_str("image", 1))
        most = processor.info.allowed_mm_limits.get("image")
        renderer = DeclaredRenderer(context, declaration, scaled_jpeg_decoding, hint, most)
        described = f"the input mappers that {model_cls.__name__} declares"
        return _Path(renderer, partial(model_cls.get_placeholder_str, "image"), described)
    if scaled_jpeg_decoding:
        raise SettingsError(
            "preprocess.scaled_jpeg_decoding = true, but the model goes through vLLM's own processor, which takes "
            "whole images"
        )
    check_processor(settings.engine, processor)
    if "image" not in processor.info.supported_mm_limits:
        return _text_path(settings)
    with loading("processor", settings):
        videos = None if has_videos is False else RowVideos.of(processor, model_config, model_cls, bool(has_videos))
        return _shipped_path(settings, context, processor, model_cls, videos)


def _shipped_path(
    settings: ModelSettings,
    context: InputProcessingContext,
    processor: Any,
    model_cls: "type[SupportsMultiModal]",
    videos: RowVideos | None,
) -> _Path:
    """The path for a model that vLLM ships: its bulk mapper, or vLLM's processor for it."""
    placeholders = ImagePlaceholders(processor, model_cls.get_placeholder_str)
    placeholders.text(1)
    by_vllm = VllmRenderer(processor, placeholders, videos)
    if settings.mapper == "vllm":
        return _Path(by_vllm, placeholders.text, 'vLLM\'s own processor: model.mapper = "vllm"', videos)
    try:
        bulk = bulk_renderer(context, processor, model_cls, by_vllm, placeholders.text(1))
    except NoBulkMapper as reason:
        return _Path(by_vllm, placeholders.text, f"vLLM's own processor: {reason}", videos)
    most = min(n for n in (processor.info.allowed_mm_limits["image"], bulk.most_images) if n is not None)
    renderer = ShippedRenderer(bulk, by_vllm, placeholders, most)
    return _Path(renderer, placeholders.text, "the bulk mapper, which gives what vLLM's own processor gives", videos)


def _text_path(settings: ModelSettings) -> _Path:
    _refuse_mapper(settings, "the model takes no images")
    return _Path(TextRenderer(), None, None)


def _refuse_mapper(settings: ModelSettings, reason: str) -> None:
    if settings.mapper != "auto":
        raise SettingsError(f'model.mapper = "{settings.mapper}" does nothing: {reason}; remove it')
