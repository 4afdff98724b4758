"""Renders conversations to prompt pieces, by the model's own chat template or by one that the job names.

The prompt is that of vLLM's `LLM.chat`, except that text of the data never becomes a special token.
"""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, groupby
from typing import Any

from run_batch.model.checkpoint.settings import SettingsError
from run_batch.model.declaration import RowError
from run_batch.model.prompts.message_parts import MessageImage, MessageVideo, Part
from run_batch.model.prompts.messages import Message
from run_batch.model.prompts.tokenizer import Piece, PromptTokenizer

# Private-use characters that mark the place of the k-th text while the template is rendered.
_MARK = re.compile("\ue000(\\d+)\ue001")

# What the job cannot set by prompt.chat_template_kwargs: run-batch does.
_OWN_VARIABLES = frozenset({"messages", "tools", "add_generation_prompt", "continue_final_message"})


@dataclass(frozen=True, slots=True)
class ChatSettings:
    """What a job says of its chat template.

    Attributes:
        template: Jinja text, or the name of one of the tokenizer's templates; None for the model's own.
        variables: variables that the template reads, such as `enable_thinking`.
        tools: descriptions of tools, as JSON objects.
    """

    template: str | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)
    tools: Sequence[Mapping[str, Any]] = ()


class ChatTemplate:
    """Renders conversations; the text of messages never becomes a special token."""

    def __init__(
        self,
        model_config: Any,
        tokenizer: PromptTokenizer,
        image_placeholder: Callable[[int], str | None],
        video_placeholder: Callable[[int], str | None],
        settings: ChatSettings,
    ) -> None:
        """Find the template: the job's, else the processor's, else the tokenizer's.

        Args:
            image_placeholder: the text that stands for the k-th image of a prompt, from 1.
            video_placeholder: the same for its videos.

        Raises:
            SettingsError: there is no chat template, or it does not read what the job sets for it.
        """
        from vllm.renderers.hf import resolve_chat_template, resolve_chat_template_content_format

        self._model_config, self._tokenizer, self._settings = model_config, tokenizer, settings
        self._placeholders = {MessageImage: image_placeholder, MessageVideo: video_placeholder}
        self._tools = [dict(tool) for tool in settings.tools] or None
        hf_tokenizer = tokenizer.hf_tokenizer
        _check_renderer(model_config)
        _check_name(settings.template, hf_tokenizer)
        try:
            template = resolve_chat_template(hf_tokenizer, settings.template, self._tools, model_config=model_config)
        except ValueError as error:
            raise SettingsError(f"prompt.chat = true, but no chat template can be chosen: {error}") from None
        if template is None:
            raise SettingsError(
                f"prompt.chat = true, but {model_config.model} has no chat template; name one in "
                "prompt.chat_template, or write prompt.template with prompt.chat = false"
            )
        self._template: str = template
        _check_variables(template, settings, hf_tokenizer)
        content_format = resolve_chat_template_content_format(
            template, self._tools, "auto", hf_tokenizer, model_config=model_config
        )
        self._takes_parts = content_format == "openai"
        self._knows_developer = "developer" in template

    def pieces(self, messages: Sequence[Message]) -> list[Piece]:
        """The prompt of one conversation. One that ends with a message of the assistant is to be continued.

        Raises:
            RowError: `prompt_messages`, for messages that the template refuses, or where text of the data that reads
                like a special token cannot be told from the template's own.
        """
        if not messages:
            raise RowError("prompt_messages", "the row has no messages")
        prompt = self._render(messages, str)
        texts = [text for message in messages for text in _data_texts(message)]
        if not any(map(self._tokenizer.may_hold_special, texts)):
            return [Piece(prompt, trusted=True)]
        if any(self._tokenizer.may_hold_special(name) for message in messages for name in _names_in(message.fields)):
            raise RowError("prompt_messages", "the name of an argument of a tool call reads like a special token")
        marked: list[str] = []
        rendered = self._render(messages, lambda text: _mark(text, marked))
        pieces = _split(rendered, marked)
        if "".join(piece.text for piece in pieces) == prompt:
            return pieces
        # The template has looked into a text, as many drop the reasoning of earlier turns.
        if self._tokenizer.special_tokens(prompt) == self._tokenizer.special_tokens(_MARK.sub("", rendered)):
            return [Piece(prompt, trusted=True)]
        raise RowError(
            "prompt_messages",
            "a message holds text that reads like a special token, and the chat template changes that text: the two "
            "cannot be told apart",
        )

    def _render(self, messages: Sequence[Message], write: Callable[[str], str]) -> str:
        """The prompt as text; `write` turns each text of the data to what the template gets."""
        from vllm.exceptions import VLLMValidationError
        from vllm.renderers.hf import safe_apply_chat_template

        self._check_developer(messages)
        numbers: dict[type, Iterator[int]] = {kind: count(1) for kind in self._placeholders}
        conversation = [
            {
                "role": message.role,
                "content": self._content(message, write, numbers),
                **_map_texts(message.fields, write),
            }
            for message in messages
        ]
        goes_on = messages[-1].role == "assistant"
        try:
            return safe_apply_chat_template(
                self._model_config,
                self._tokenizer.hf_tokenizer,
                conversation,
                tools=self._tools,
                chat_template=self._template,
                tokenize=False,
                **{
                    **self._settings.variables,
                    "add_generation_prompt": not goes_on,
                    "continue_final_message": goes_on,
                },
            )
        except VLLMValidationError as error:
            raise RowError("prompt_messages", f"the chat template refuses the messages: {error}") from None

    def _check_developer(self, messages: Sequence[Message]) -> None:
        """Refuse what vLLM loses: several system messages that it merges for templates without developer messages."""
        systems = [number for number, message in enumerate(messages) if message.role in ("system", "developer")]
        has_developer = any(message.role == "developer" for message in messages)
        if has_developer and self._takes_parts and not self._knows_developer and systems != [0]:
            raise RowError(
                "prompt_messages",
                "the chat template has no developer messages, and the messages have others than one at their beginning",
            )

    def _content(self, message: Message, write: Callable[[str], str], numbers: Mapping[type, Iterator[int]]) -> Any:
        def text_of(item: Piece | MessageImage | MessageVideo) -> str:
            if isinstance(item, Piece):
                return item.text if item.trusted else write(item.text)
            return self._placeholders[type(item)](next(numbers[type(item)])) or ""

        if not self._takes_parts:
            lines = ["".join(map(text_of, part)) for part in message.parts]
            return "\n".join(line for line in lines if line)
        content = [piece for part in message.parts for piece in _as_dicts(part, text_of)]
        if message.role == "tool" and all(piece["type"] == "text" for piece in content):
            return "\n".join(piece["text"] for piece in content)  # as vLLM does: few templates read parts there
        return content


def _check_renderer(model_config: Any) -> None:
    """Refuse models whose conversations vLLM renders by code of its own, and by no template."""
    from vllm.tokenizers.registry import tokenizer_args_from_config

    mode = tokenizer_args_from_config(model_config)[0]
    if mode != "hf":
        raise SettingsError(
            f"prompt.chat = true, but vLLM renders the conversations of {model_config.model} by code of its own for "
            f"tokenizer_mode {mode}, and by no template; write prompt.template with prompt.chat = false"
        )


def _check_name(template: str | None, tokenizer: Any) -> None:
    """Refuse a word that names none of the tokenizer's templates: as a template, it would be every row's prompt."""
    named = tokenizer.chat_template if isinstance(tokenizer.chat_template, dict) else {}
    if template is not None and "{" not in template and template not in named:
        known = f"the tokenizer has {', '.join(named)}" if named else "the tokenizer has none with names"
        raise SettingsError(f"prompt.chat_template = {template!r}: no such file, nor a template of that name; {known}")


def _check_variables(template: str, settings: ChatSettings, tokenizer: Any) -> None:
    """Refuse variables and tools that the template does not read: they would do nothing."""
    read = _variables_of(template)
    fixed = {*inspect.signature(tokenizer.apply_chat_template).parameters, *_OWN_VARIABLES} - {"documents"}
    for name in settings.variables:
        if name in fixed:
            raise SettingsError(f"prompt.chat_template_kwargs.{name}: run-batch sets that itself")
        if name not in read:
            raise SettingsError(f"prompt.chat_template_kwargs.{name}: the chat template does not read it")
    if settings.tools and "tools" not in read:
        raise SettingsError("prompt.tools: the chat template takes no tools")


def _variables_of(template: str) -> set[str]:
    """The variables that a template reads.

    Raises:
        SettingsError: the template is no Jinja template.
    """
    import jinja2.ext
    import jinja2.meta
    import jinja2.sandbox
    from vllm.renderers.hf import AssistantTracker

    # As transformers compiles chat templates.
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[AssistantTracker, jinja2.ext.loopcontrols]
    )
    try:
        return jinja2.meta.find_undeclared_variables(environment.parse(template))
    except jinja2.TemplateError as error:
        raise SettingsError(f"prompt.chat = true, but the chat template is invalid: {error}") from None


def _as_dicts(part: Part, text_of: Callable[[Piece | MessageImage | MessageVideo], str]) -> Iterator[dict[str, str]]:
    """A part in the form of templates that take parts: each image or video, and the text between two of them."""
    for is_text, items in groupby(part, lambda item: isinstance(item, Piece)):
        if is_text:
            yield {"type": "text", "text": "".join(map(text_of, items))}
        else:
            yield from ({"type": "image" if isinstance(item, MessageImage) else "video"} for item in items)


def _data_texts(message: Message) -> Iterator[str]:
    """All texts of a message that come from the data."""
    for part in message.parts:
        yield from (item.text for item in part if isinstance(item, Piece) and not item.trusted)
    yield from _texts_in(message.fields)


def _texts_in(value: Any) -> Iterator[str]:
    """All texts in a nested value, and the names of its keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield name
            yield from _texts_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts_in(item)


def _names_in(value: Any) -> Iterator[str]:
    """The names of all keys in a nested value."""
    items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list | tuple) else ()
    for name, item in items:
        yield str(name)
        yield from _names_in(item)


def _map_texts(value: Any, change: Callable[[str], str]) -> Any:
    """The same nested value with each text in it, names of keys aside, replaced by what `change` makes of it."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _map_texts(item, change) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_map_texts(item, change) for item in value]
    return value


def _mark(text: str, texts: list[str]) -> str:
    """Replace `text` by a mark, except the white space around it, which the template may trim."""
    core = text.strip()
    if not core:
        return text
    texts.append(core)
    return text.replace(core, f"\ue000{len(texts) - 1}\ue001", 1)


def _split(rendered: str, texts: Sequence[str]) -> list[Piece]:
    pieces: list[Piece] = []
    cut = 0
    for match in _MARK.finditer(rendered):
        pieces.append(Piece(rendered[cut : match.start()], trusted=True))
        pieces.append(Piece(texts[int(match[1])], trusted=False))
        cut = match.end()
    pieces.append(Piece(rendered[cut:], trusted=True))
    return [piece for piece in pieces if piece.text]
