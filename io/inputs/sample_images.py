"""Images of WebDataset samples whose files have one of several extensions: `jpg;png`, as WebDataset itself has it.

A shard's schema tells which extensions of images samples have together, so that no sample is taken for one without an
image because its image has another extension than that of most.
"""

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from run_batch.io.inputs.image_names import is_image_name
from run_batch.io.inputs.input_parts import InputPart
from run_batch.io.inputs.source import Cursor, InputError, RowBatch, Source

_SETS = b"images_of_samples"
_JOINED = b"joined_column"
_SEPARATOR = ";"
# Some 60 bytes each. Shards are seldom of more than some ten thousand samples.
_MOST_KEYS = 2_000_000


@functools.lru_cache(maxsize=4096)
def images_in_sample(extensions: tuple[str, ...]) -> str:
    """Those of a sample's extensions that are images, sorted and joined; empty without any."""
    return _SEPARATOR.join(sorted(name for name in extensions if is_image_name(f".{name}")))


class ScatteredSamples:
    """Finds samples of a shard whose image does not lie beside its other files: two rows would be made of each."""

    def __init__(self) -> None:
        """Without any sample."""
        # Hashes of the keys of samples that are an image alone, and of those without any.
        self._images, self._others = set[int](), set[int]()

    def is_part(self, key: str, extensions: tuple[str, ...]) -> bool:
        """Add a sample; whether another one is a part of it, too."""
        images = images_in_sample(extensions).count(_SEPARATOR) + 1 if images_in_sample(extensions) else 0
        if 0 < images < len(extensions) or len(self._images) + len(self._others) > _MOST_KEYS:
            return False
        own, other = (self._images, self._others) if images else (self._others, self._images)
        own.add(hash(key))
        return hash(key) in other


def with_image_sets(schema: pa.Schema, sets: Mapping[str, str]) -> pa.Schema:
    """The schema of shards that tells of their images.

    Args:
        sets: a sample's key by what `images_in_sample` gave of it.
    """
    return schema.with_metadata({**(schema.metadata or {}), _SETS: json.dumps(dict(sets)).encode()})


def missed_sample(schema: pa.Schema, column: str) -> tuple[str, str] | None:
    """A sample whose image has another extension than an image column takes; None without any.

    Args:
        column: an extension, or several, joined; images of other names, such as `mask.png` beside `jpg`, are no matter.

    Returns:
        Its key, and the column that takes its image, too.
    """
    taken = column.split(_SEPARATOR)
    stems = {_stem(name) for name in taken}
    for joined, key in json.loads((schema.metadata or {}).get(_SETS, b"{}")).items():
        alike = [name for name in joined.split(_SEPARATOR) if _stem(name) in stems]
        if alike and not set(alike) & set(taken):
            return key, _SEPARATOR.join([*taken, *alike])
    return None


def whole_column(schema: pa.Schema, column: str) -> str:
    """An image column that takes the images of all samples: the column itself, or with what it misses."""
    while (missed := missed_sample(schema, column)) is not None:
        column = missed[1]
    return column


def likely_column(schema: pa.Schema) -> str | None:
    """An image column that takes an image of each sample that has any; None where no sample has, or of other inputs."""
    sets = json.loads((schema.metadata or {}).get(_SETS, b"{}"))
    return next((whole_column(schema, joined.split(_SEPARATOR)[0]) for joined in sets), None)


def joined_column(schema: pa.Schema) -> str | None:
    """The column of a source that others of it make."""
    name = (schema.metadata or {}).get(_JOINED)
    return None if name is None else name.decode()


def with_image_column(source: Source, column: str) -> Source:
    """A source of samples with the image column that a job names, where that is of several extensions.

    Raises:
        InputError: the samples have none of these.
    """
    if _SETS not in (source.schema.metadata or {}) or _SEPARATOR not in column or column in source.schema.names:
        return source
    parts = [name for name in column.split(_SEPARATOR) if name in source.schema.names]
    if not parts:
        raise InputError(f"input.image_column names {column!r}; the samples have: {', '.join(source.schema.names)}")
    return _JoinedSource(source, column, parts)


def _stem(extension: str) -> str:
    """What is before the last part of an extension: `left` of `left.png`."""
    return extension.rpartition(".")[0]


class _JoinedSource:
    """A source with one more column: of each row, the first value that some of its columns have; see Source."""

    def __init__(self, source: Source, name: str, parts: Sequence[str]) -> None:
        """Add a column of bytes, made of columns of bytes."""
        self._source, self._name, self._columns = source, name, list(parts)
        schema = source.schema.append(pa.field(name, pa.binary()))
        self.schema = schema.with_metadata({**(source.schema.metadata or {}), _JOINED: name.encode()})
        self.unusable: Mapping[str, str] = source.unusable
        self.num_rows: int = source.num_rows
        self.folder: Path | None = source.folder

    @property
    def parts(self) -> Sequence[InputPart]:
        """Those of the source."""
        return self._source.parts

    @property
    def index(self) -> bytes:
        """That of the source."""
        return self._source.index

    def cursor(self, columns: Sequence[str], batch_rows: int) -> Cursor:
        """Make a cursor; see Source.cursor."""
        if self._name not in columns:
            return self._source.cursor(columns, batch_rows)
        read = dict.fromkeys([*(name for name in columns if name != self._name), *self._columns])
        cursor = self._source.cursor(list(read), batch_rows)
        return _JoinedCursor(cursor, self._name, self._columns, list(columns))

    def starts(self) -> Iterator[range]:
        """Those of the source."""
        return self._source.starts()

    def row_names(self, start: int, stop: int) -> list[str]:
        """Those of the source."""
        return self._source.row_names(start, stop)


class _JoinedCursor:
    """Reads what the column is made of, and gives the column; see Cursor."""

    def __init__(self, cursor: Cursor, name: str, parts: Sequence[str], columns: Sequence[str]) -> None:
        self._cursor, self._name, self._parts, self._columns = cursor, name, parts, columns
        self.close = cursor.close

    def read(self, start: int, stop: int) -> Iterator[RowBatch]:
        """Read rows start..stop-1; see Cursor.read."""
        for batch in self._cursor.read(start, stop):
            records = batch.records
            joined = pc.coalesce(*(records.column(name) for name in self._parts))
            arrays = [joined if name == self._name else records.column(name) for name in self._columns]
            yield RowBatch(batch.start, pa.RecordBatch.from_arrays(arrays, self._columns), batch.row_ids)
