"""The input that is in files, opened: the files found, their format told, and the source made that reads them."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from run_batch.io.inputs.file_source import FileSource
from run_batch.io.inputs.formats import FORMATS, IMAGES, check_same, format_by_name, has_suffix_of, one_format
from run_batch.io.inputs.hub_commits import at_commits, recorded_commits
from run_batch.io.inputs.image_folder import ImageFolderSource
from run_batch.io.inputs.image_names import is_image_name
from run_batch.io.inputs.image_table import ImageTableFormat, check_images_exist, is_image_table_name
from run_batch.io.inputs.input_files import InputFiles, Wanted, find_files, join_files
from run_batch.io.inputs.read_errors import reading
from run_batch.io.inputs.source import InputError, Source


def open_files(
    paths: Sequence[str],
    format_name: str | None,
    index: bytes = b"",
    split: str | None = None,
    name: str | None = None,
    leave_out: Callable[[str], bool] = lambda _: False,
    looks_again: bool = False,
) -> Source:
    """Open the input that is in the files that paths, globs or URLs name.

    Args:
        format_name: as `input.format`; None to tell it from the files.
        index: `index` of an earlier source over the same input.
        split: the split to read, or parts of splits; see splits.py.
        name: the configuration to read, of a folder whose README.md declares some.
        leave_out: whether a local file, given by its real path, is no part of the input.
        looks_again: look at every file, also if it is in the index.

    Raises:
        InputError: there are no files, they are of several formats, or of none that is read.
    """
    known = b"" if looks_again else index
    is_image_table = False
    paths, commits = at_commits(paths, recorded_commits(index))
    if format_name is None:
        format_name, files, is_image_table = _tell_format(paths, leave_out)
    else:
        files = find_files(paths, leave_out, _wanted(format_name))
    if format_name == IMAGES:
        return _open_images(files, index, split, name)
    files, kind = replace(files, commits=commits), FORMATS[format_name]
    if not is_image_table:
        return FileSource(files, kind, known, split, name)
    source = FileSource(files, ImageTableFormat(kind), known, split, name)
    if not known and files.filesystem is None:
        with reading(files.root):
            check_images_exist(source, files.root)
    return source


def _wanted(format_name: str) -> Wanted:
    """Which files of a folder are of a format."""
    if format_name == IMAGES:
        return Wanted("image file", is_image_name)
    kind = FORMATS[format_name]
    return Wanted(f"{kind.name} file", lambda name: has_suffix_of(name, kind))


def _tell_format(paths: Sequence[str], leave_out: Callable[[str], bool]) -> tuple[str, InputFiles, bool]:
    """The format of files that are of one, the files, and whether they are tables of the images beside them."""
    searches = [_Search(leave_out) for _ in paths]
    told = [search.find(path) for search, path in zip(searches, paths, strict=True)]
    check_same([(key, files.paths[0]) for key, files in told])
    format_name = told[0][0]
    if format_name == IMAGES and len(paths) > 1:
        return format_name, find_files(paths, leave_out, _wanted(format_name)), False
    files = join_files([files for _, files in told])
    has_images = all(search.image for search in searches) and files.is_folder
    return format_name, files, has_images and all(map(is_image_table_name, files.paths))


def _open_images(files: InputFiles, index: bytes, split: str | None, name: str | None) -> Source:
    if name is not None:
        raise InputError(f"input.name {name!r}: a folder of images has no configurations; leave it out")
    with reading(files.root):
        return ImageFolderSource(files, index, split)


@dataclass(slots=True)
class _Search:
    """Of the files that a path names, whose format is not known yet. Of a folder, one image stands for all, of which
    there may be millions.

    Attributes:
        leave_out: see `open_files`; what it refuses may turn out to be no part of the input.
        image: the name of an image in the folder, if there is one.
        refused: the errors of `leave_out`, by real path.
    """

    leave_out: Callable[[str], bool]
    image: str = ""
    refused: dict[str, InputError] = field(default_factory=dict)

    def find(self, path: str) -> tuple[str, InputFiles]:
        """The format of the files, and those that are of it."""
        found = find_files(path, self._is_left_out, Wanted("file of rows", self._is_data))
        format_name, files = one_format(found, is_image_name)
        for file in files.paths if self.refused else ():
            error = self.refused.get(os.path.realpath(file))
            if error is not None:
                raise error
        return format_name, files

    def _is_data(self, name: str) -> bool:
        if is_image_name(name):
            self.image = self.image or name
            return name == self.image
        return format_by_name(name) is not None

    def _is_left_out(self, real: str) -> bool:
        try:
            return self.leave_out(real)
        except InputError as error:
            self.refused[real] = error
            return False
