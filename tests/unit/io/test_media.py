"""The forms of a row's images, and what the media root keeps out."""

import os
from pathlib import Path

import pyarrow as pa
import pytest

from run_batch.io.media import image_reader as media
from run_batch.io.media.errors import MediaError
from run_batch.io.media.image_column import can_hold_images
from run_batch.io.media.image_reader import MediaReader


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root" / "sub").mkdir(parents=True)
    (tmp_path / "root" / "sub" / "a.png").write_bytes(b"A")
    (tmp_path / "secret.png").write_bytes(b"S")
    return tmp_path / "root"


def kind(root: Path | None, cell: object) -> str:
    with pytest.raises(MediaError) as caught:
        list(MediaReader(root).read(cell))
    assert str(caught.value).startswith(f"{caught.value.kind}: ")
    return caught.value.kind


def test_every_form_gives_the_encoded_bytes(root: Path) -> None:
    def read(cell: object) -> list[object]:
        return list(MediaReader(root).read(cell))

    assert read(None) == []
    assert read(b"A") == [b"A"]
    assert read({"bytes": b"A", "path": "elsewhere.png"}) == [b"A"]
    assert read({"bytes": None, "path": "sub/a.png"}) == [b"A"]
    assert read({"bytes": None, "path": None}) == []
    assert read("sub/a.png") == [b"A"]
    assert read(str(root / "sub" / "a.png")) == [b"A"]
    assert read([b"A", "sub/a.png", {"bytes": b"B", "path": None}]) == [b"A", b"A", b"B"]


STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@pytest.mark.parametrize(
    "kind",
    [
        *(pa.null(), pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(16)),
        *(pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())),
        *(STRUCT, pa.struct([("bytes", pa.large_binary())]), pa.struct([("path", pa.null()), ("width", pa.int32())])),
        *(pa.list_(STRUCT), pa.large_list(pa.binary()), pa.list_(pa.string(), 2), pa.list_(pa.null())),
        *(pa.list_(pa.list_(pa.float16())), pa.list_(pa.large_list(pa.list_(pa.int8(), 4)))),
        pa.json_(),
    ],
    ids=str,
)
def test_columns_of_these_types_can_hold_images(kind: pa.DataType) -> None:
    assert can_hold_images(kind)


@pytest.mark.parametrize(
    "kind",
    [
        *(pa.int64(), pa.float32(), pa.bool_(), pa.date32(), pa.timestamp("us"), pa.decimal128(5, 2), pa.duration("s")),
        *(pa.map_(pa.string(), pa.binary()), pa.dictionary(pa.int32(), pa.int64())),
        *(pa.struct([]), pa.struct([("data", pa.binary()), ("name", pa.string())])),
        *(pa.struct([("bytes", pa.string())]), pa.struct([("bytes", pa.binary()), ("path", pa.binary())])),
        *(pa.struct([("bytes", pa.list_(pa.uint8())), ("path", pa.string())]), pa.struct([("bytes", STRUCT)])),
        *(pa.list_(pa.struct([("url", pa.string())])), pa.list_(pa.date32()), pa.list_(pa.list_(pa.binary()))),
        *(pa.list_(pa.uint8()), pa.list_(pa.list_(pa.list_(pa.list_(pa.float32())))), pa.list_(pa.bool_())),
    ],
    ids=str,
)
def test_columns_of_these_types_cannot_hold_images(kind: pa.DataType) -> None:
    assert not can_hold_images(kind)


@pytest.mark.parametrize(
    "cell",
    [
        *({}, {"data": b"A", "name": "a.png"}, {"data": None, "name": None}, {"url": "https://example.com/a.png"}),
        *({"bytes": None, "path": None, "url": "sub/a.png"}, {"bytes": None, "thumbnail": b"A"}),
        *({"bytes": "sub/a.png"}, {"bytes": None, "path": b"A"}, {"bytes": [65]}, {"path": 3}),
        *([{"data": b"A"}], [b"A", {"name": "sub/a.png"}], [("bytes", b"A")], [[b"A"]]),
    ],
    ids=str,
)
def test_a_cell_of_another_form_is_an_error_and_never_no_image(root: Path, cell: object) -> None:
    MediaReader(root).announce([cell])
    assert kind(root, cell) == "image_form"


def test_a_struct_of_nulls_is_no_image_alone_and_an_error_beside_images(root: Path) -> None:
    for empty in ({"bytes": None, "path": None}, {"path": None}, {"bytes": None, "path": None, "width": 0}):
        assert list(MediaReader(root).read(empty)) == []
        assert kind(root, [b"A", empty]) == "image_null"


def test_paths_cannot_leave_the_media_root(root: Path) -> None:
    (root / "link.png").symlink_to(root.parent / "secret.png")
    (root / "folder").symlink_to(root.parent)
    for path in (
        "../secret.png",
        "sub/../../secret.png",
        str(root.parent / "secret.png"),
        "link.png",
        "folder/secret.png",
    ):
        assert kind(root, path) == "path_not_allowed"
    assert kind(None, "sub/a.png") == "path_not_allowed"
    assert kind(root, "https://example.com/a.png") == "url_not_allowed"


def test_what_is_no_readable_file_is_an_error_of_the_row(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(root / "fifo.png")
    assert kind(root, "missing.png") == "image_not_found"
    assert kind(root, "") == "image_not_found"
    assert kind(root, "sub") == "image_unreadable"
    assert kind(root, "fifo.png") == "image_unreadable"
    assert kind(root, [None]) == "image_null"
    assert kind(root, 3.5) == "image_form"
    monkeypatch.setattr(media, "MAX_BYTES", 0)
    assert kind(root, "sub/a.png") == kind(root, b"A") == "image_too_large"


def test_a_folder_that_becomes_a_link_after_its_path_was_resolved_leads_nowhere(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "folder").symlink_to(root.parent)
    (root / "link.png").symlink_to(root.parent / "secret.png")
    reader = MediaReader(root)
    # What a resolver that ran before the links were made would have said.
    monkeypatch.setattr(os.path, "realpath", str)
    for path in ("folder/secret.png", "link.png"):
        with pytest.raises(MediaError) as caught:
            list(reader.read(path))
        assert caught.value.kind == "image_unreadable"
    assert list(reader.read("sub/a.png")) == [b"A"]


def test_a_file_that_may_not_be_read_is_an_error_of_the_row(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    assert kind(root, "sub/a.png") == "image_unreadable"


def test_the_images_of_a_row_have_a_limit_together_and_no_more_is_read(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media, "MAX_BYTES", 3)
    assert len(list(MediaReader(root).read(["sub/a.png"] * 3))) == 3
    assert kind(root, ["sub/a.png"] * 4) == "image_too_large"
    read = MediaReader(root).read(["sub/a.png"] * 3 + ["missing.png"])
    assert [next(read) for _ in range(3)] == [b"A"] * 3, "images are read before they are asked for"


def test_a_file_that_grows_while_it_is_read_is_held_to_the_limit(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "sub" / "a.png").write_bytes(b"12345")
    status = os.stat(root / "sub" / "a.png")
    monkeypatch.setattr(media, "MAX_BYTES", 4)
    monkeypatch.setattr(os, "fstat", lambda _: os.stat_result((status.st_mode, *status[1:6], 1, *status[7:])))
    assert kind(root, "sub/a.png") == "image_too_large"
