"""WebDataset's tar shards: a row is a sample, the files that follow each other and have one name up to the first dot.

Shards are read in place. Headers are read once, which gives an index of offsets; then any row is a seek away.
"""

import contextlib
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from run_batch.io.files import sample_open_file
from run_batch.io.inputs.columns import Columns
from run_batch.io.inputs.file_content import check_is, read_head
from run_batch.io.inputs.file_format import FileFacts, OpenFile
from run_batch.io.inputs.file_rows import FileRows
from run_batch.io.inputs.first_look import look_at_each, looking_at
from run_batch.io.inputs.input_files import InputFiles
from run_batch.io.inputs.json_lines import array_of, parse_value
from run_batch.io.inputs.json_seen import Seen
from run_batch.io.inputs.line_blocks import BlockIndex
from run_batch.io.inputs.sample_images import ScatteredSamples, images_in_sample, with_image_sets
from run_batch.io.inputs.source import DamagedInputError
from run_batch.io.inputs.tar_members import Member, TarError, read_members

KEY = "__key__"
# As WebDataset splits names; what has no dot, or begins with one, is no part of a sample.
_NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)", re.DOTALL)
_TEXTS = ("txt", "text", "caption", "transcript", "cls", "id", "html", "md")
_BLOCK_BYTES = 16 << 20
_BATCH_BYTES = 64 << 20
_LARGEST_MEMBER = 512 << 20
_SAMPLES = 16
_MOST_COLUMNS = 256
# Of samples whose images differ in their extensions; those of more kinds are not told apart.
_MOST_IMAGE_SETS = 1024


@dataclass(slots=True)
class _Extensions:
    """The columns of shards: one for each extension.

    Attributes:
        names: of all of them, in the order in which they came.
        json: what those in JSON hold.
        images: of each set of extensions of images that samples have, the first sample; see sample_images.py.
    """

    names: dict[str, None] = field(default_factory=dict)
    json: Seen = field(default_factory=Seen)
    images: dict[str, str] = field(default_factory=dict)

    def add(self, key: str, extensions: tuple[str, ...]) -> None:
        """Add what a sample has."""
        self.names |= dict.fromkeys(extensions)
        images = images_in_sample(extensions)
        if images and len(self.images) < _MOST_IMAGE_SETS:
            self.images.setdefault(images, key)

    def merge(self, other: "_Extensions") -> None:
        """Add what the samples of another shard have."""
        self.names |= other.names
        self.json.merge(other.json)
        for images, key in other.images.items():
            self.images.setdefault(images, key)

    def columns(self) -> Columns:
        """Their columns, after the key's."""
        found = self.json.columns()
        of_json = {one.name: one.type for one in found.schema}
        fields = [(name, of_json.get(name) or (pa.string() if _is_text(name) else pa.binary())) for name in self.names]
        schema = pa.schema([(KEY, pa.string()), *fields])
        return Columns(with_image_sets(schema, self.images), found.unusable)


class TarFormat:
    """Tar shards; see FileFormat."""

    name = "WebDataset"
    suffixes = (".tar",)

    def look_at_all(self, files: InputFiles) -> list[FileFacts]:
        """Read the headers of all shards."""
        return look_at_each(files, self.look_at)

    def look_at(self, files: InputFiles, path: str) -> FileFacts:
        """Read the headers of a shard, and its files in JSON."""
        with looking_at(files, path) as (size, changed), contextlib.closing(files.open_buffered(path)) as file:
            head = read_head(files, path)
            if any(head):  # an archive without files is zeros alone
                check_is("webdataset", "a tar archive", path, head)
            name, found, index, digest = files.name(path), _Extensions(), BlockIndex(_BLOCK_BYTES), hashlib.sha256()
            end, scattered = 0, ScatteredSamples()
            try:
                for key, members in _samples(read_members(file, size)):
                    if scattered.is_part(key, tuple(members)):
                        raise TarError(
                            f"the files of {key!a} do not lie beside each other; pack them sorted (--sort=name)"
                        )
                    index.add(min(member.header for member in members.values()))
                    found.add(f"{key} of {name}", tuple(members))
                    for extension, member in members.items():
                        digest.update(f"{member.name}\0{member.size}\0{member.changed}\n".encode())
                        if _is_json(extension):
                            found.json.add({extension: _json(file, member)}, f"{key}.{extension} of {name}")
                        end = member.start + member.size
                    if len(found.names) > _MOST_COLUMNS:
                        raise TarError(f"more than {_MOST_COLUMNS} different extensions")
            except TarError as error:
                raise DamagedInputError(
                    f"input.path: {path} cannot be read as a tar shard: {error}; put a good copy in its place"
                ) from None
            groups, offsets = index.ended(end)
            digest.update(sample_open_file(_rewound(file), size, _SAMPLES))
            schema = found.columns().schema
            return FileFacts(path, name, size, changed, schema, groups, digest.hexdigest(), offsets, content=found)

    def dump_content(self, content: Any) -> Any:
        """See LookedAtOnce.dump_content."""
        return [list(content.names), content.json.dump(), content.images]

    def load_content(self, dumped: Any) -> Any:
        """See LookedAtOnce.load_content."""
        return _Extensions(dict.fromkeys(dumped[0]), Seen.load(dumped[1]), dict(dumped[2]))

    def columns(self, facts: Sequence[FileFacts]) -> Columns:
        """The columns of all shards: the key, and one for each extension; null in samples that lack it."""
        every = _Extensions()
        for one in facts:
            every.merge(one.content)
        return every.columns()

    def open(self, files: InputFiles, facts: FileFacts, schema: pa.Schema, batch_rows: int) -> OpenFile:
        """Open a shard; of files that no column needs, the headers are read alone."""
        file = files.open_buffered(facts.path)

        def read(group: int) -> Iterator[pa.RecordBatch]:
            rows, nbytes = list[Mapping[str, Any]](), 0
            left = facts.row_groups[group]
            try:
                for key, members in _samples(read_members(file, facts.size, facts.offsets[group])):
                    rows.append(_row(file, key, members, schema))
                    nbytes += sum(members[name].size for name in schema.names if name in members)
                    left -= 1
                    if len(rows) == batch_rows or nbytes >= _BATCH_BYTES or not left:
                        yield _batch(rows, schema)
                        rows, nbytes = [], 0
                    if not left:
                        return
            except TarError as error:
                raise pa.ArrowInvalid(str(error)) from None

        return OpenFile(FileRows(facts.row_groups, read), file.close)


def _samples(members: Iterator[Member]) -> Iterator[tuple[str, dict[str, Member]]]:
    """The files of each sample by extension, with their common name."""
    key, sample = "", dict[str, Member]()
    for member in members:
        split = _NAME.fullmatch(member.name)
        if split is None:
            continue
        name, extension = split[1], split[2].lower()
        if name != key and sample:
            yield key, sample
            sample = {}
        if extension in sample or extension == KEY:
            raise TarError(f"{member.name!a} is there twice in its sample")
        key = name
        sample[extension] = member
    if sample:
        yield key, sample


def _row(file: Any, key: str, members: Mapping[str, Member], schema: pa.Schema) -> dict[str, Any]:
    row: dict[str, Any] = {KEY: key}
    for column in schema:
        if column.name in members:
            take = _json if _is_json(column.name) else _content
            row[column.name] = take(file, members[column.name])
    return row


def _batch(rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays(
        [_array([row.get(one.name) for row in rows], one) for one in schema], schema=schema
    )


def _array(values: list[Any], column: pa.Field) -> pa.Array:
    if column.name == KEY or _is_json(column.name):
        return array_of(values, column.type)
    # Text that is not UTF-8 is an error of its row.
    return pa.array(values, pa.binary()).view(column.type)


def _content(file: Any, member: Member) -> bytes:
    if member.size > _LARGEST_MEMBER:
        raise TarError(f"{member.name!a} has {member.size:,} bytes; {_LARGEST_MEMBER:,} are read at most")
    file.seek(member.start)
    content: bytes = file.read(member.size)
    if len(content) < member.size:
        raise TarError(f"{member.name!a} is cut off")
    return content


def _json(file: Any, member: Member) -> Any:
    content = _content(file, member)
    try:
        return parse_value(content)
    except ValueError as error:
        raise TarError(f"{member.name!a}: {error}") from None


def _is_json(extension: str) -> bool:
    return extension.rpartition(".")[2] == "json"


def _is_text(extension: str) -> bool:
    return extension.rpartition(".")[2] in _TEXTS


def _rewound(file: Any) -> Any:
    file.seek(0)
    return file
