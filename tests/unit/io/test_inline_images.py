"""Images that are written into text: data: URLs and base64, and what tells them from paths."""

import base64
import re
import tracemalloc
from pathlib import Path
from urllib.parse import quote_from_bytes

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import encoded, picture

from run_batch.io.media import image_reader as media
from run_batch.io.media.allowed_hosts import HostRules
from run_batch.io.media.errors import MediaError
from run_batch.io.media.image_reader import MediaReader

SMALL = picture(1, (1, 1))
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "AVIF", "TIFF", "BMP", "JPEG2000", "ICO", "QOI")


def read(cell: object, root: Path | None = None) -> list[object]:
    reader = MediaReader(root)
    reader.announce([cell])
    return list(reader.read(cell))


def refused(cell: object, root: Path | None = None) -> MediaError:
    with pytest.raises(MediaError) as caught:
        read(cell, root)
    return caught.value


def as_base64(content: bytes, line: int = 0, url_safe: bool = False, padded: bool = True) -> str:
    """Base64 as some writer makes it: in lines, in the URL-safe alphabet, without padding."""
    text = (base64.urlsafe_b64encode if url_safe else base64.b64encode)(content).decode()
    text = text if padded else text.rstrip("=")
    return "\r\n".join(re.findall(f".{{1,{line}}}", text)) + "\r\n" if line else text


WRITERS = st.builds(dict, line=st.sampled_from([0, 1, 64, 76]), url_safe=st.booleans(), padded=st.booleans())
HEADERS = st.sampled_from(
    [
        *("data:image/png;base64,", "data:;base64,", "DATA:IMAGE/JPEG;BASE64,", "data:image/png;charset=utf-8;base64,"),
        *(" data:image/png;name=a.png; base64 ,", "data:application/octet-stream;base64,", "\ndata:text/plain;base64,"),
    ]
)


@settings(deadline=None)
@given(st.binary(), HEADERS, WRITERS)
def test_a_data_url_in_base64_is_its_content_whoever_wrote_it(content: bytes, header: str, writer: dict) -> None:
    text = header + as_base64(content, **writer)
    assert read(text) == read({"bytes": None, "path": text}) == [content]
    assert read([text, b"A", text + "#fragment"]) == [content, b"A", content]
    assert read(text.replace("+", "%2b").replace("=", "%3D").replace("\r\n", "%0D%0A")) == [content]


@settings(deadline=None)
@given(st.binary(), st.sampled_from(["data:,", "data:image/png,", "Data:image/gif;charset=US-ASCII,"]))
def test_a_data_url_in_percent_encoding_is_its_content(content: bytes, header: str) -> None:
    assert read(header + quote_from_bytes(content)) == [content]
    assert read(header + "".join(f"%{byte:02x}" for byte in content) + "\n") == [content]


def test_text_that_holds_its_image_is_never_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched: list[str] = []
    monkeypatch.setattr("run_batch.io.media.prefetch.fetch", lambda url, *_: fetched.append(url) or b"A")
    reader = MediaReader(None, HostRules.of(["example.org"], False))
    text = as_base64(encoded(SMALL))
    cells = ["data:;base64," + text, [{"bytes": None, "path": "data://example.org/;base64," + text}], text]
    cells.append("https://example.org/a.png")
    reader.announce(cells)
    assert [list(reader.read(cell)) for cell in cells] == [[encoded(SMALL)]] * 3 + [[b"A"]]
    assert fetched == ["https://example.org/a.png"]


def test_percent_encoding_of_any_length_is_decoded_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytes(range(256))
    for length in range(3, 20):
        monkeypatch.setattr("run_batch.io.media.inline_images._PERCENT_DECODED_AT_ONCE", length)
        assert read("data:," + quote_from_bytes(content)) == [content]


@pytest.mark.parametrize("form", FORMATS)
@settings(deadline=None)
@given(writer=WRITERS)
def test_base64_of_an_image_is_the_image_whoever_wrote_it(form: str, writer: dict) -> None:
    for image in (SMALL, picture(2)):
        content = encoded(image, form)
        text = as_base64(content, **writer)
        assert read(text) == read({"bytes": None, "path": text}) == [content]
        assert read(["\n " + text, content]) == [content, content]


def test_a_file_is_a_file_even_if_its_name_is_base64_of_an_image(tmp_path: Path) -> None:
    names = [as_base64(encoded(SMALL, form)) for form in ("GIF", "PNG", "QOI", "BMP", "WEBP")]
    names += ["iVBORw0KGgo=", "R0lGODlh/UklGRg", "Qk0", "folder/Qk1234"]
    for name in names:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"\xff " + name.encode())
        assert read(name, tmp_path) == read(str(file), tmp_path) == [b"\xff " + name.encode()]
    assert read(names[0], tmp_path / "folder") == [encoded(SMALL, "GIF")]
    (tmp_path / "R0lGODdh").mkdir()
    assert refused("R0lGODdh", tmp_path).kind == "image_unreadable"
    # A root that an image's base64 begins with: a JPEG's is an absolute path.
    assert read(as_base64(encoded(SMALL, "JPEG")), Path("/9j/")) == [encoded(SMALL, "JPEG")]


@pytest.mark.parametrize(
    "name", ["photo", "Qk0x/img", "iVBORw0KGgo.png", "R0lGODlh/a.gif", "UklGRg", "BM", "TU0A", "a/b"]
)
def test_a_path_to_no_file_is_not_taken_for_base64(name: str, tmp_path: Path) -> None:
    error = refused(name, tmp_path)
    assert str(error) == f"image_not_found: no file {name} in input.media_root"
    assert refused("/9j/4.jpg", tmp_path).kind == "path_not_allowed"


@pytest.mark.parametrize(
    ("cell", "kind", "said"),
    [
        ("data:image/png;base64", "image_form", "without a comma"),
        ("data:" + "x" * 5000 + ",A", "image_form", "without a comma"),
        ("data:image/png;base64,iVBOR*w0KGgo", "image_decode", "damaged base64, with b'*' after 5 characters"),
        ("data:image/png;base64,AA==BBBB", "image_decode", "damaged base64, with b'=' after 2 characters"),
        ("data:image/png;base64,日本", "image_decode", "damaged base64, with b'\\xe6' after 0 characters"),
        ("data:image/png;base64,AAAAA", "image_decode", "cut off after 5 characters"),
        ("data:image/png,iVBORw0KGgoAAAA", "image_decode", "are text of an image, 'iVBORw0KGgoAAAA'"),
        ("iVBORw0KGgoAA", "image_decode", "cut off after 13 characters"),
        ("iVBORw0KGgo" + "A" * 5000 + "!", "image_decode", "with b'!' after 5,011 characters"),
        (
            "PHN2ZyB4bWxucz" * 20,
            "image_unreadable",
            "(280 characters: if this is base64, put data:;base64, ",
        ),
        ("b'iVBORw0KGgo" + "A" * 5000 + "'", "image_unreadable", "5,014 characters"),
        ("a\ud800", "text_encoding", "UTF-8"),
        ("https://example.org/\ud800", "text_encoding", "UTF-8"),
    ],
)
def test_text_that_holds_no_whole_image_is_an_error_that_names_its_cause(
    cell: str, kind: str, said: str, tmp_path: Path
) -> None:
    error = refused(cell, tmp_path)
    assert error.kind == kind and said in error.message
    assert len(error.message) < 400


def test_bytes_that_are_text_of_an_image_are_named_so(tmp_path: Path) -> None:
    text = as_base64(encoded(SMALL))
    (tmp_path / "a.txt").write_text(text)
    for cell in (text.encode(), b" Data:image/png;base64," + text.encode(), "a.txt", {"bytes": text.encode()}):
        error = refused(cell, tmp_path)
        assert error.kind == "image_decode" and "text of an image" in error.message


def test_text_of_more_than_the_limit_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    content = encoded(SMALL) + bytes(1 << 20)
    for text in (
        as_base64(content),
        as_base64(content, line=76),
        "data:;base64," + as_base64(content, line=76),
        "data:," + "%00" * len(content),
    ):
        monkeypatch.setattr(media, "MAX_BYTES", len(content))
        assert len(read(text)[0]) == len(content)  # type: ignore[arg-type]
        monkeypatch.setattr(media, "MAX_BYTES", len(content) - 9)
        tracemalloc.start()
        assert refused(text).kind == "image_too_large"
        assert tracemalloc.get_traced_memory()[1] < len(content) // 2
        tracemalloc.stop()
        monkeypatch.setattr(media, "MAX_BYTES", len(content) * 2 - 1)
        assert refused([text, text]).kind == "image_too_large"


def test_hostile_text_costs_little_memory() -> None:
    text = "data:," + "%41" * (1 << 20)
    tracemalloc.start()
    assert len(read(text)[0]) == 1 << 20  # type: ignore[arg-type]
    assert tracemalloc.get_traced_memory()[1] < 8 * len(text)
    tracemalloc.stop()
    assert refused("data:" + ";" * (4 << 20)).kind == "image_form"
    assert refused("a/" * (2 << 20), Path("/tmp")).kind == "image_unreadable"
