"""Prompts by a chat template: conversations of the data, or made of prompt.template and the job's own messages."""

from collections.abc import Collection, Mapping, Sequence
from itertools import chain
from typing import Any

import pyarrow as pa

from run_batch.jobs.job.chat_settings import read_chat_settings, read_example_images
from run_batch.jobs.job.config import JobConfig
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.prompt_column import PromptColumn, is_message, parse_json_messages, reads_like_messages
from run_batch.jobs.job.prompt_template import PromptTemplate, parse_template
from run_batch.jobs.mapping.prompt_draft import (
    Images,
    Item,
    PromptDraft,
    Videos,
    fill_template,
    find_places,
    kinds_of,
    refuse_needless_placeholder,
)
from run_batch.model.checkpoint.settings import SettingsError
from run_batch.model.declaration import RowError
from run_batch.model.images.row_image import EncodedImage, decode_row_image
from run_batch.model.prompts.message_parts import MessageImage, MessageVideo, Part, refusal
from run_batch.model.prompts.messages import Message, Place, parse_messages
from run_batch.model.prompts.tokenizer import Piece
from run_batch.model.rendering.renderer import Prompt, Renderer

# A text that no template holds or changes.
_PROBE = "ProbeOfRunBatch"


class ChatPrompts:
    """Makes the conversations of one job, and renders them."""

    # Chat templates write BOS and the like themselves.
    add_special_tokens = False

    def __init__(self, config: JobConfig, schema: pa.Schema, model: Renderer, holds: PromptColumn) -> None:
        """Check template and messages of the job against the input's columns and the model.

        Args:
            holds: what the prompt column holds.

        Raises:
            JobError: they do not fit.
        """
        self._config, self._holds, self._model = config, holds, model
        try:
            self._chat = model.chat_template(read_chat_settings(config))
        except SettingsError as error:
            raise JobError(str(error)) from None
        self._template: PromptTemplate | None = None
        if holds is PromptColumn.TEXTS:
            key = "input.prompt_column" if is_message(config) else "prompt.template"
            self._template = parse_template(config.prompt.template, config.input.prompt_column, schema, key)
            refuse_needless_placeholder(config, model.image_placeholder(1), self._template.literal_text)
        self._prefill: PromptTemplate | None = None
        if config.prompt.prefill is not None:
            self._prefill = parse_template(
                config.prompt.prefill, config.input.prompt_column, schema, key="prompt.prefill"
            )
        self._first = self._messages_of_the_job()
        self._first_images = list(chain(*self._example_images()))
        self._check("" if self._prefill is None else self._prefill.literal_text.replace("\0", "x") or "x")

    def draft(self, row: Mapping[str, Any]) -> PromptDraft:
        """Begin the prompt of a row.

        Raises:
            RowError: `prompt_null` or `prompt_messages`.
        """
        if self._template is not None:
            filled = fill_template(self._template, row)
            self._refuse_messages(row)
            return PromptDraft((), (), lambda *media: self._finish(row, [self._user_message(filled, *media)], *media))
        messages = [self._with_markers(message) for message in self._conversation(row)]
        if not self._model.takes_videos and any(message.places(MessageVideo) for message in messages):
            raise refusal(f"a message holds a video, and {self._config.model.path} takes no videos")
        held = (_held_cells(messages, MessageImage), _held_cells(messages, MessageVideo))
        return PromptDraft(*held, lambda *media: self._finish(row, messages, *media))

    def _refuse_messages(self, row: Mapping[str, Any]) -> None:
        """Refuse a conversation in a column of texts: as text, the model would answer something else."""
        value = row[self._config.input.prompt_column] if is_message(self._config) else None
        if isinstance(value, str) and reads_like_messages(value):
            raise RowError(
                "prompt_messages",
                f"the row reads like a conversation, and column {self._config.input.prompt_column} holds texts; a "
                "template such as 'Read this: {prompt}' takes all of it as text",
            )

    def _conversation(self, row: Mapping[str, Any]) -> list[Message]:
        column = self._config.input.prompt_column
        value = row[column]
        if value is None:
            raise RowError("prompt_null", f"column {column} is null")
        if self._holds is PromptColumn.JSON_CONVERSATIONS:
            try:
                value = parse_json_messages(value)
            except UnicodeEncodeError:
                raise RowError("text_encoding", "a message holds half of a surrogate pair, which is no text") from None
            except ValueError as error:
                raise RowError(
                    "prompt_messages",
                    f"{error}; a template such as 'Read this: {{prompt}}' takes the column as text",
                ) from None
        return parse_messages(value)

    def _with_markers(self, message: Message) -> Message:
        if self._config.prompt.image_marker is None:
            return message
        parts: list[Part] = []
        for part in message.parts:
            items: list[Item] = []
            for item in part:
                items += self._find_places([(item.text, item.trusted)]) if isinstance(item, Piece) else [item]
            parts.append(items)
        return Message(message.role, parts, message.fields)

    def _find_places(
        self, filled: Sequence[tuple[str, bool]], kinds: Collection[type[Item]] = (MessageImage, MessageVideo)
    ) -> list[Item]:
        return find_places(filled, self._model, self._config.prompt.image_marker, kinds)

    def _user_message(
        self, filled: Sequence[tuple[str, bool]], images: Images, _: Images, videos: Videos, __: Videos
    ) -> Message:
        return Message("user", [self._find_places(filled, kinds_of(images, videos))])

    def _finish(
        self,
        row: Mapping[str, Any],
        messages: Sequence[Message],
        images: Images,
        held_images: Images,
        videos: Videos,
        held_videos: Videos,
    ) -> Prompt:
        # Those that have no place stand before the text, images before videos.
        messages, shown = _place(messages, MessageVideo, videos, held_videos)
        messages, order = _place(messages, MessageImage, images, held_images)
        return Prompt(self._chat.pieces(self._around(row, messages)), [*self._first_images, *order], shown)

    def _around(self, row: Mapping[str, Any], messages: Sequence[Message]) -> list[Message]:
        """The row's messages between the job's first ones and its prefill."""
        own_system = messages[:1] if messages[0].role in ("system", "developer") else []
        if own_system and self._config.prompt.system is not None:
            raise RowError("prompt_messages", "the row has a system message of its own, and prompt.system is set")
        found = [*own_system, *self._first, *messages[len(own_system) :]]
        if self._prefill is None:
            return found
        if found[-1].role == "assistant":
            raise RowError("prompt_messages", "the row ends with a message of the assistant, and prompt.prefill is set")
        return [*found, Message("assistant", [[Piece(*part) for part in fill_template(self._prefill, row)]])]

    def _messages_of_the_job(self) -> list[Message]:
        """prompt.system, and the turns of prompt.examples."""
        prompt = self._config.prompt
        found = [] if prompt.system is None else [Message("system", [[Piece(prompt.system, trusted=True)]])]
        for example in prompt.examples:
            found.append(Message("user", [self._find_places([(example["text"], True)])]))
            found.append(Message("assistant", [[Piece(example["answer"], trusted=True)]]))
        return found

    def _example_images(self) -> list[list[EncodedImage]]:
        """The images of prompt.examples; puts those that its texts have no placeholder for before the texts."""
        found = []
        questions = [number for number, message in enumerate(self._first) if message.role == "user"]
        for number, contents in zip(questions, read_example_images(self._config), strict=True):
            images = list(map(EncodedImage.of, contents))
            try:
                for image in images:
                    decode_row_image(image)
                (self._first[number],), _ = _place([self._first[number]], MessageImage, images, ())
            except RowError as error:
                raise JobError(f"prompt.examples: {error.message}") from None
            found.append(images)
        return found

    def _check(self, prefill: str) -> None:
        """Render a plain conversation of this job: a template that fails on it, or drops of it, does so on every row.

        Args:
            prefill: prompt.prefill with something in its fields.
        """
        image: Part = [MessageImage()] if self._config.input.image_column else []
        video: Part = [MessageVideo()] if self._config.input.video_column is not None else []
        ask = Message("user", [image, video, [Piece("What is this?", trusted=True)]])
        begun = [Message("assistant", [[Piece(prefill, trusted=True)]])] if prefill else []
        try:
            self._chat.pieces([*self._first, ask, *begun])
            for key, message in (*self._keys(), ("prompt.template", ask), *(("prompt.prefill", m) for m in begun)):
                self._check_is_written(key, message, [*self._first, ask, *begun])
        except RowError as error:
            raise JobError(f"prompt.chat = true, but a plain message cannot be rendered: {error.message}") from error

    def _keys(self) -> list[tuple[str, Message]]:
        """The messages of the job, each with the key that it comes from."""
        return [
            ("prompt.system" if message.role == "system" else "prompt.examples", message) for message in self._first
        ]

    def _check_is_written(self, key: str, message: Message, conversation: Sequence[Message]) -> None:
        """Refuse a template that leaves a message out, by giving it a text that nothing else has."""
        media = [part for part in message.parts if any(not isinstance(item, Piece) for item in part)]
        probe = Message(message.role, [*media, [Piece(_PROBE, trusted=True)]])
        changed = [probe if other is message else other for other in conversation]
        if not any(_PROBE in piece.text for piece in self._chat.pieces(changed)):
            raise JobError(f"{key}: the chat template does not write the text of this message into the prompt")


def _held_cells(messages: Sequence[Message], kind: type[Place]) -> list[Any]:
    """The images, or the videos, that messages hold themselves."""
    return [place.cell for message in messages for place in message.places(kind) if place.cell is not None]


def _place(
    messages: Sequence[Message], kind: type[Place], column: Sequence[Any], held: Sequence[Any]
) -> tuple[list[Message], list[Any]]:
    """Give each place for an image, or for a video, in messages its own.

    Args:
        kind: which of the two.
        column: those of the row's column. If no message has a place for them, they stand before the first user message.
        held: those that the messages hold themselves, in order.

    Returns:
        The messages, and all images, or videos, in the order of their places.

    Raises:
        RowError: `placeholders` or `prompt_messages`, if they do not fit the places.
    """
    messages, what = list(messages), "images" if kind is MessageImage else "videos"
    places = [place for message in messages for place in message.places(kind)]
    if column and all(place.cell is not None for place in places):
        messages = _with_parts_before(messages, [[kind()] for _ in column], what)
        places = [place for message in messages for place in message.places(kind)]
    own = [place for place in places if place.cell is None]
    chosen, others = iter(_choose(own, len(column), what)), iter(held)
    return messages, [next(others) if place.cell is not None else column[next(chosen)] for place in places]


def _with_parts_before(messages: Sequence[Message], parts: Sequence[Part], what: str) -> list[Message]:
    """The messages with some parts before the text of the first one of the user."""
    found = list(messages)
    first = next((number for number, message in enumerate(found) if message.role == "user"), None)
    if first is None:
        raise RowError("prompt_messages", f"the row has {what}, but no user message to put them in")
    found[first] = Message("user", [*parts, *found[first].parts], found[first].fields)
    return found


def _choose(places: Sequence[MessageImage | MessageVideo], count: int, what: str) -> list[int]:
    """Which of a row's `count` images, or videos, goes to each place; every one has to go somewhere.

    Raises:
        RowError: `placeholders`.
    """
    indices = {place.index for place in places if place.index is not None}
    beyond = [index for index in indices if index >= count]
    if beyond:
        raise RowError("placeholders", f"a part has index {beyond[0]}, counted from 0; the row has {count} {what}")
    others = iter([number for number in range(count) if number not in indices])
    chosen = [next(others, None) if place.index is None else place.index for place in places]
    if None in chosen or next(others, None) is not None:
        raise RowError("placeholders", f"the messages have {len(places)} places for {what}, the row has {count}")
    return [number for number in chosen if number is not None]
