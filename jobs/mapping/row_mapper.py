"""Maps batches of input rows to what the engine takes: token ids, image tensors, the row's sampling settings.

Runs in the worker processes. A row that cannot be mapped becomes a RowFailure and leaves the other rows as they are.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence, Set
from itertools import chain
from typing import Any, TypeAlias

import pyarrow as pa

from run_batch.io.inputs.source import RowBatch
from run_batch.io.media.allowed_hosts import HostRules
from run_batch.io.media.errors import MediaError
from run_batch.io.media.image_column import image_cells
from run_batch.io.media.image_reader import MediaReader
from run_batch.io.media.media_root import MediaRoot
from run_batch.jobs.job.config import JobConfig
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.prompt_column import PromptColumn
from run_batch.jobs.job.rows import MappedRow, MappedRows, RowFailure
from run_batch.jobs.mapping.chat_prompts import ChatPrompts
from run_batch.jobs.mapping.prompt_draft import PromptDraft
from run_batch.jobs.mapping.row_clock import MAPPING_ROW, clock
from run_batch.jobs.mapping.row_groups import RowGroups
from run_batch.jobs.mapping.row_images import RowImages, RowVideos
from run_batch.jobs.mapping.row_settings import RowSettings, row_settings
from run_batch.jobs.mapping.template_prompts import TemplatePrompts
from run_batch.jobs.mapping.worker_memory import PLENTY, WorkerMemory
from run_batch.model.checkpoint.settings import SettingsError
from run_batch.model.declaration import RowError
from run_batch.model.images.row_image import RowImage
from run_batch.model.rendering.bad_row_isolation import isolate_bad_rows
from run_batch.model.rendering.engine_input import tensor_bytes
from run_batch.model.rendering.job_faults import raise_if_no_rows_fault
from run_batch.model.rendering.renderer import Prompt, Renderer
from run_batch.model.rendering.row_video import EncodedVideo

# A row that has been read: its index, its prompt, its settings.
_Ready: TypeAlias = tuple[int, Prompt, RowSettings]


class RowMapper:
    """Maps the rows of one job."""

    def __init__(
        self,
        config: JobConfig,
        schema: pa.Schema,
        media_root: MediaRoot | None,
        prompt_column: PromptColumn = PromptColumn.TEXTS,
        memory: WorkerMemory = PLENTY,
    ) -> None:
        """Load the model's configs and tokenizer, and check the prompt settings against them.

        Args:
            config: the job's configuration.
            schema: of the whole input.
            media_root: the folder that image paths must stay inside; None when paths are not allowed.
            prompt_column: what the prompt column holds.
            memory: what images may take.

        Raises:
            JobError: the model cannot be loaded, or a prompt setting does not fit it.
        """
        self._config = config
        self._job_sampling = config.resolve_sampling().values
        hosts = HostRules.of(config.input.allowed_hosts, config.input.allow_private_hosts)
        table = config.input
        may_have_videos = None if prompt_column is not PromptColumn.TEXTS else False  # in messages
        has_videos = True if table.video_column is not None else may_have_videos
        ahead = memory.download_bytes if has_videos is False else memory.download_bytes // 2
        self._images = RowImages(MediaReader(media_root, hosts, ahead), table.image_column)
        self._videos = RowVideos(MediaReader(media_root, hosts, ahead, are_videos=True), table.video_column)
        self._groups = RowGroups(memory.encoded_bytes)
        try:
            self._model = Renderer(config.model_settings, config.preprocess.scaled_jpeg_decoding, has_videos)
            self._model.check_sampling(self._job_sampling)
        except SettingsError as error:
            raise JobError(str(error)) from None
        self._check_takes_images()
        self._prompts = (
            ChatPrompts(config, schema, self._model, prompt_column)
            if config.prompt.chat
            else TemplatePrompts(config, schema, self._model)
        )

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer."""
        return self._model.tokenizer

    @property
    def max_model_len(self) -> int:
        """Tokens of a prompt and its text together."""
        return self._model.max_model_len

    def _check_takes_images(self) -> None:
        column = self._config.input.image_column
        if column and not self._model.takes_images:
            raise JobError(
                f"input.image_column is {column!r}, but {self._config.model.path} takes no images; "
                'set input.image_column = "" for a text-only job'
            )

    @property
    def image_mapping(self) -> str | None:
        """What maps the model's images, and why, in one line; None for a model that takes none."""
        return self._model.image_mapping

    @property
    def video_mapping(self) -> str | None:
        """What samples and maps rows' videos, in one line; None for a job without videos."""
        return self._model.video_mapping

    @property
    def image_placeholder(self) -> str | None:
        """The text that stands for a prompt's first image; None where the model needs none."""
        return self._model.image_placeholder(1)

    def map(self, batch: RowBatch) -> Iterator[MappedRow | RowFailure]:
        """Map the rows of a batch; see `map_groups`."""
        return chain.from_iterable(self.map_groups(batch))

    def map_groups(self, batch: RowBatch) -> Iterator[Iterator[MappedRow | RowFailure]]:
        """Map the rows of a batch, as many together as take little memory.

        Args:
            batch: rows with the columns of `needed_columns`, and with row ids if the job names no id column.

        Yields:
            The results of the rows that were mapped together, one per row, in the order of the rows. They are to be
            taken before the next group, and nothing else holds them.

        Raises:
            DeclarationError: a function of a declared model breaks its contract.
            JobFault: the model's processor, a library or the machine fails, whatever the row.
        """
        rows = self._rows(batch)
        drafts = [self._draft(index, row) for index, row in enumerate(rows, batch.start)]
        self._announce(rows, drafts)
        self._groups.begin()
        results: MappedRows = []
        ready: list[_Ready] = []
        for offset, (row, draft) in enumerate(zip(rows, drafts, strict=True)):
            index = batch.start + offset
            clock.begin(index, 1, MAPPING_ROW)
            try:
                if isinstance(draft, RowError):
                    raise draft
                assert not isinstance(row, RowError), "its draft is its error"
                row_id = batch.row_ids[offset] if batch.row_ids else str(row[str(self._config.input.id_column)])
                settings = row_settings(row, row_id, self._job_sampling, self._config)
                prompt = self._prompt(row, draft)
            except (RowError, MediaError) as error:
                raise_if_no_rows_fault(error)
                results.append(RowFailure.of(index, error.kind, error.message))
                continue
            items = [*prompt.images, *prompt.videos]
            if self._groups.ends_before(items):
                yield self._take_ready(results, ready)
            self._groups.add(items)
            ready.append((index, prompt, settings))
        yield self._take_ready(results, ready)

    def _take_ready(self, results: MappedRows, ready: list[_Ready]) -> Iterator[MappedRow | RowFailure]:
        """Map the rows that are ready, and empty both lists."""
        results += self._map_ready(ready)
        ready.clear()
        results.sort(key=lambda result: result.row, reverse=True)
        clock.rest()  # whoever takes them may wait
        while results:
            yield results.pop()

    def _announce(self, rows: Sequence[Mapping[str, Any] | RowError], drafts: Sequence[PromptDraft | RowError]) -> None:
        """Start to download what the rows name."""
        able = [
            (row, draft)
            for row, draft in zip(rows, drafts, strict=True)
            if not isinstance(row, RowError) and not isinstance(draft, RowError)
        ]
        self._images.announce(able)
        self._videos.announce(able)

    def images(self, batch: RowBatch) -> list[Sequence[RowImage | EncodedVideo]]:
        """Read the images of each row of a batch in the order of its prompt, and its videos; none of a row that has no
        prompt.

        Args:
            batch: see `map`.
        """
        rows = self._rows(batch)
        found: list[Sequence[RowImage | EncodedVideo]] = []
        for row, draft in zip(rows, list(map(self._draft, range(batch.start, batch.stop), rows)), strict=True):
            found.append(())
            if not isinstance(row, RowError) and not isinstance(draft, RowError):
                with contextlib.suppress(RowError, MediaError):
                    prompt = self._prompt(row, draft)
                    found[-1] = [*prompt.images, *prompt.videos]
        return found

    def _draft(self, index: int, row: Mapping[str, Any] | RowError) -> PromptDraft | RowError:
        clock.begin(index, 1, "filling in its prompt")
        if isinstance(row, RowError):
            return row
        try:
            return self._prompts.draft(row)
        except RowError as error:
            return error

    def _map_ready(self, ready: Sequence[_Ready]) -> MappedRows:
        prompts = [prompt for _, prompt, _ in ready]
        if ready:
            has_images = any(prompt.images or prompt.videos for prompt in prompts)
            media = "images or videos" if any(prompt.videos for prompt in prompts) else "images"
            what = f"decoding and mapping its {media}" if has_images else "tokenizing its prompt"
            clock.begin(ready[0][0], len(ready), what)
        mapped = self._model.render(prompts, add_special_tokens=self._prompts.add_special_tokens)
        sizes = [0 if isinstance(result, RowError) else tensor_bytes(result) for result in mapped]
        self._groups.mapped(sizes)
        for result in mapped:
            if isinstance(result, RowError):
                raise_if_no_rows_fault(result)
        return [
            RowFailure.of(index, result.kind, result.message + self._hint(prompt, result))
            if isinstance(result, RowError)
            else MappedRow(index, result, own.sampling, nbytes, adapter=own.adapter, priority=own.priority)
            for (index, prompt, own), result, nbytes in zip(ready, mapped, sizes, strict=True)
        ]

    def _hint(self, prompt: Prompt, error: RowError) -> str:
        """What to do where the data holds the model's placeholder as text, and images have no place."""
        placeholder = self.image_placeholder
        if error.kind != "placeholders" or not placeholder:
            return ""
        if not any(placeholder in piece.text for piece in prompt.pieces if not piece.trusted):
            return ""
        return f'; {placeholder} in the data is text: with prompt.image_marker = "{placeholder}" it stands for an image'

    def _prompt(self, row: Mapping[str, Any], draft: PromptDraft) -> Prompt:
        return draft.finish(*self._images.read(row, draft), *self._videos.read(row, draft))

    def _rows(self, batch: RowBatch) -> list[Mapping[str, Any] | RowError]:
        """The rows by column name, as Python values; one with a value that Python cannot hold as its RowError."""
        records, table = batch.records, self._config.input

        def values(rows: Sequence[int]) -> Iterator[Mapping[str, Any]]:
            return _values(records.slice(rows[0], len(rows)), {table.image_column, table.video_column})

        return isolate_bad_rows(values, range(records.num_rows))


def _values(records: pa.RecordBatch, media_columns: Set[str | None]) -> Iterator[Mapping[str, Any]]:
    try:
        columns = {
            name: image_cells(column) if name in media_columns else column.to_pylist()
            for name, column in zip(records.schema.names, records.columns, strict=True)
        }
    except UnicodeDecodeError:
        raise RowError("text_encoding", "the row holds text that is not UTF-8") from None
    except OverflowError:
        raise RowError("column_value", "the row holds a date or time outside of the years 1 to 9999") from None
    return (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))
