"""Renders chat messages to prompt pieces, by the model's own chat template."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from run_batch.model.checkpoint.settings import SettingsError
from run_batch.model.declaration import RowError
from run_batch.model.prompts.tokenizer import Piece

# Private-use characters that mark the place of the k-th text while the template is rendered.
_MARK = re.compile("\ue000(\\d+)\ue001")

_ROLE = re.compile(r"[A-Za-z][A-Za-z_-]{0,31}")

Message = Mapping[str, Any]


class ChatTemplate:
    """Renders conversations; the text of messages never becomes a special token."""

    def __init__(self, model_config: Any, tokenizer: Any, image_placeholder: str | None) -> None:
        """Find the template: the processor's, else the tokenizer's.

        Raises:
            SettingsError: the checkpoint has no chat template.
        """
        from vllm.renderers.hf import resolve_chat_template, resolve_chat_template_content_format

        self._tokenizer = tokenizer
        self._placeholder = image_placeholder or ""
        self._template = resolve_chat_template(tokenizer, None, None, model_config=model_config)
        if self._template is None:
            raise SettingsError(
                f"prompt.chat = true, but {model_config.model} has no chat template; write prompt.template instead"
            )
        content_format = resolve_chat_template_content_format(
            self._template, None, "auto", tokenizer, model_config=model_config
        )
        self._takes_parts = content_format == "openai"

    def pieces(self, messages: Sequence[Message], num_images: int) -> list[Piece]:
        """The prompt of one conversation.

        Args:
            messages: each with `role` and `content`, which is text or a list of parts `{"type": "text", "text": ...}`
                and `{"type": "image"}`. Without image parts, the images precede the first user message's text.

        Raises:
            RowError: `prompt_messages`, for messages of another form, or that the template refuses.
        """
        if not messages:
            raise RowError("prompt_messages", "the row has no messages")
        contents = [_parts(message) for message in messages]
        roles = [message["role"] for message in messages]
        if num_images and not any(part is None for content in contents for part in content):
            if "user" not in roles:
                raise RowError("prompt_messages", "the row has images, but no user message to put them in")
            contents[roles.index("user")][:0] = [None] * num_images
        texts: list[str] = []
        conversation = [
            {"role": role, "content": self._content(content, texts)}
            for role, content in zip(roles, contents, strict=True)
        ]
        try:
            rendered = self._tokenizer.apply_chat_template(
                conversation, chat_template=self._template, tokenize=False, add_generation_prompt=True
            )
        except Exception as error:  # templates raise exceptions of their own
            raise RowError("prompt_messages", f"the chat template refuses the messages: {error}") from None
        return _split(rendered, texts)

    def _content(self, content: list[str | None], texts: list[str]) -> Any:
        parts: list[dict[str, str]] = []
        for part in content:
            parts.append({"type": "image"} if part is None else {"type": "text", "text": _mark(part, texts)})
        if self._takes_parts:
            return parts
        return "\n".join(self._placeholder if p["type"] == "image" else p["text"] for p in parts)


def _parts(message: Any) -> list[str | None]:
    """The parts of a message, each a text, or None for an image."""
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise RowError("prompt_messages", "a chat message needs a role and a content")
    # The role is rendered as trusted text, where special tokens count: it has to be a name.
    if not _ROLE.fullmatch(message["role"]):
        raise RowError("prompt_messages", f"a message has the role {message['role'][:40]!r}; expected user or the like")
    content = message.get("content")
    if isinstance(content, str):
        return [content]
    if not isinstance(content, Sequence):
        raise RowError("prompt_messages", f"the content of a message cannot be a {type(content).__name__}")
    parts: list[str | None] = []
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "image":
            parts.append(None)
        elif kind == "text" and isinstance(part.get("text"), str):
            parts.append(part["text"])
        else:
            raise RowError("prompt_messages", f"a part of a message has type {kind!r}; expected text or image")
    return parts


def _mark(text: str, texts: list[str]) -> str:
    """Replace `text` by a mark, except the white space around it, which the template may trim."""
    core = text.strip()
    if not core:
        return text
    texts.append(core)
    return text.replace(core, f"\ue000{len(texts) - 1}\ue001", 1)


def _split(rendered: str, texts: list[str]) -> list[Piece]:
    pieces: list[Piece] = []
    cut = 0
    for match in _MARK.finditer(rendered):
        pieces.append(Piece(rendered[cut : match.start()], trusted=True))
        pieces.append(Piece(texts[int(match[1])], trusted=False))
        cut = match.end()
    pieces.append(Piece(rendered[cut:], trusted=True))
    return [piece for piece in pieces if piece.text]
