"""Maps batches of input rows to what the engine takes: token ids, image tensors, the row's sampling settings.

Runs in the worker processes. A row that cannot be mapped becomes a RowFailure and leaves the other rows as they are.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from blake3 import blake3

from run_batch.io.inputs.source import RowBatch
from run_batch.io.media.allowed_hosts import HostRules
from run_batch.io.media.errors import MediaError
from run_batch.io.media.image_column import image_cells
from run_batch.io.media.image_reader import MediaReader
from run_batch.jobs.job.config import JobConfig
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.prompt_template import PromptTemplate, parse_template
from run_batch.jobs.job.rows import MappedRow, MappedRows, RowFailure
from run_batch.jobs.mapping.row_sampling import row_sampling
from run_batch.model.checkpoint.settings import SettingsError
from run_batch.model.declaration import RowError
from run_batch.model.images.features import features_tensor
from run_batch.model.images.row_image import EncodedImage, RowImage
from run_batch.model.prompts.tokenizer import Piece
from run_batch.model.rendering.bad_row_isolation import isolate_bad_rows
from run_batch.model.rendering.job_faults import raise_if_no_rows_fault
from run_batch.model.rendering.renderer import Prompt, Renderer

# Bytes of encoded images that are mapped at once: bounds the memory that a worker needs for rows with huge images.
_READY_BYTES = 256 << 20


class RowMapper:
    """Maps the rows of one job."""

    def __init__(self, config: JobConfig, schema: pa.Schema, media_root: Path | None) -> None:
        """Load the model's configs and tokenizer, and check the prompt settings against them.

        Args:
            config: the job's configuration.
            schema: of the whole input.
            media_root: the folder that image paths must stay inside; None when paths are not allowed.

        Raises:
            JobError: the model cannot be loaded, or a prompt setting does not fit it.
        """
        self._config = config
        self._job_sampling = config.resolve_sampling().values
        hosts = HostRules.of(config.input.allowed_hosts, config.input.allow_private_hosts)
        self._media = MediaReader(media_root, hosts)
        try:
            self._model = Renderer(config.model_settings, config.preprocess.scaled_jpeg_decoding)
            self._model.check_sampling(self._job_sampling)
            self._chat = self._model.chat_template() if config.prompt.chat else None
        except SettingsError as error:
            raise JobError(str(error)) from None
        if self._chat is not None:
            self._check_chat_template()
        placeholder = self._model.image_placeholder
        self._template = self._text_template = PromptTemplate([])
        if not config.prompt.chat:
            self._template = parse_template(config.prompt.template, config.input.prompt_column, schema)
            self._text_template = self._template.without(placeholder) if placeholder else self._template
            self._check_placeholder(placeholder)

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return self._model.tokenizer

    def _check_chat_template(self) -> None:
        """Render a plain message: a template that fails on that fails on every row."""
        assert self._chat is not None
        system = self._config.prompt.system
        messages = [{"role": "system", "content": system}] if system is not None else []
        messages.append({"role": "user", "content": "What is this?"})
        try:
            self._chat.pieces(messages, 1 if self._config.input.image_column else 0)
        except RowError as error:
            raise JobError(f"prompt.chat = true, but a plain message cannot be rendered: {error.message}") from error

    def _check_placeholder(self, placeholder: str | None) -> None:
        column = self._config.input.image_column
        if not column:
            return
        if not self._model.takes_images:
            raise JobError(
                f"input.image_column is {column!r}, but {self._config.model.path} takes no images; "
                'set input.image_column = "" for a text-only job'
            )
        if placeholder is not None and placeholder not in self._template.literal_text:
            raise JobError(
                f"prompt.template has no {placeholder}, the model's image placeholder, so the images of column "
                f"{column} would not be seen; add it where the image belongs"
            )

    def map(self, batch: RowBatch) -> MappedRows:
        """Map the rows of a batch.

        Args:
            batch: rows with the columns of `needed_columns`, and with row ids if the job names no id column.

        Returns:
            One result per row, in the order of the rows.

        Raises:
            DeclarationError: a function of a declared model breaks its contract.
            JobFault: the model's processor, a library or the machine fails, whatever the row.
        """
        column = self._config.input.image_column
        rows = _rows(batch.records, column)
        if column:
            self._media.announce(row[column] for row in rows if not isinstance(row, RowError))
        results: MappedRows = []
        ready: list[tuple[int, Prompt, Mapping[str, Any]]] = []
        waiting = 0
        for offset, row in enumerate(rows):
            index = batch.start + offset
            try:
                if isinstance(row, RowError):
                    raise row
                row_id = batch.row_ids[offset] if batch.row_ids else str(row[str(self._config.input.id_column)])
                sampling = row_sampling(self._job_sampling, row_id, row.get(self._config.input.sampling_column or ""))
                ready.append((index, self._prompt(row), sampling))
            except (RowError, MediaError) as error:
                raise_if_no_rows_fault(error)
                results.append(RowFailure.of(index, error.kind, error.message))
                continue
            waiting += sum(map(_nbytes, ready[-1][1].images))
            if waiting > _READY_BYTES:
                results += self._map_ready(ready)
                ready, waiting = [], 0
        results += self._map_ready(ready)
        return sorted(results, key=lambda result: result.row)

    def _map_ready(self, ready: Sequence[tuple[int, Prompt, Mapping[str, Any]]]) -> MappedRows:
        mapped = self._model.render([prompt for _, prompt, _ in ready], add_special_tokens=self._chat is None)
        for result in mapped:
            if isinstance(result, RowError):
                raise_if_no_rows_fault(result)
        return [
            RowFailure.of(index, result.kind, result.message)
            if isinstance(result, RowError)
            else MappedRow(index, result, sampling)
            for (index, _, sampling), result in zip(ready, mapped, strict=True)
        ]

    def _prompt(self, row: Mapping[str, Any]) -> Prompt:
        column = self._config.input.image_column
        images = [_as_row_image(image) for image in self._media.read(row[column])] if column else []
        if self._chat is not None:
            return Prompt(self._chat.pieces(self._messages(row), len(images)), images)
        template = self._template if images or not column else self._text_template
        try:
            return Prompt([Piece(text, trusted) for text, trusted in template.fill(row)], images)
        except ValueError as error:
            raise RowError("prompt_null", str(error)) from None

    def _messages(self, row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
        value = row[self._config.input.prompt_column]
        if value is None:
            raise RowError("prompt_null", f"column {self._config.input.prompt_column} is null")
        messages = value if isinstance(value, list) else [{"role": "user", "content": str(value)}]
        if self._config.prompt.system is not None:
            messages = [{"role": "system", "content": self._config.prompt.system}, *messages]
        return messages


def _as_row_image(image: bytes | np.ndarray) -> RowImage:
    return features_tensor(image) if isinstance(image, np.ndarray) else EncodedImage(image, blake3(image).digest())


def _nbytes(image: RowImage) -> int:
    return len(image.encoded) if isinstance(image, EncodedImage) else getattr(image, "nbytes", 0)


def _rows(records: pa.RecordBatch, image_column: str) -> list[Mapping[str, Any] | RowError]:
    """The rows by column name, as Python values; a row with text that is not UTF-8 is given as its RowError."""

    def values(rows: Sequence[int]) -> Iterator[Mapping[str, Any]]:
        return _values(records.slice(rows[0], len(rows)), image_column)

    return isolate_bad_rows(values, range(records.num_rows))


def _values(records: pa.RecordBatch, image_column: str) -> Iterator[Mapping[str, Any]]:
    try:
        columns = {
            name: image_cells(column) if name == image_column else column.to_pylist()
            for name, column in zip(records.schema.names, records.columns, strict=True)
        }
    except UnicodeDecodeError:
        raise RowError("text_encoding", "the row holds text that is not UTF-8") from None
    return (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))
