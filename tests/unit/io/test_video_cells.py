"""The cells of the video column are read like those of the image column, and their errors are named for videos."""

import base64
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from run_batch.io.media import image_reader
from run_batch.io.media.allowed_hosts import HostRules
from run_batch.io.media.errors import MediaError
from run_batch.io.media.image_reader import MediaReader

VIDEO = b"\x00\x00\x00\x18ftypisom" + bytes(range(256))


class _Server(BaseHTTPRequestHandler):
    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        is_late = self.path == "/busy.mp4" and self.asked.count(self.path) == 1
        self.send_response(503 if is_late else 200 if self.path.endswith(".mp4") else 404)
        body = VIDEO if self.path.endswith(".mp4") and not is_late else b""
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    served = HTTPServer(("127.0.0.1", 0), _Server)
    threading.Thread(target=served.serve_forever, args=(0.01,), daemon=True).start()
    yield f"127.0.0.1:{served.server_port}"
    served.shutdown()
    served.server_close()


def read(root: Path, cell: Any, host: str = "example.org") -> list[Any]:
    reader = MediaReader(root, HostRules.of([host], True), are_videos=True)
    reader.announce([cell])
    return list(reader.read(cell))


def test_videos_are_read_in_every_form(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is busy is asked again."""
    monkeypatch.setattr("run_batch.io.transient.REMOTE_PAUSES", (0.01, 0.01))
    (tmp_path / "a.mp4").write_bytes(VIDEO)
    url = f"data:video/mp4;base64,{base64.b64encode(VIDEO).decode()}"
    cells = [
        VIDEO,
        "a.mp4",
        url,
        {"bytes": None, "path": "a.mp4"},
        f"http://{server}/b.mp4",
        f"http://{server}/busy.mp4",
    ]
    for cell in [*cells, cells]:
        assert set(read(tmp_path, cell, server)) == {VIDEO}
    assert read(tmp_path, None) == read(tmp_path, {"bytes": None, "path": None}) == []


@pytest.mark.parametrize(
    ("cell", "error"),
    [
        ("b.mp4", "video_not_found: no file b.mp4 in input.media_root"),
        ("", "video_not_found: the path is empty"),
        ("../a.mp4", "path_not_allowed: "),
        ([VIDEO, None], "video_null: the list holds a null"),
        ({"bytes": 3, "path": None}, "video_form: a struct of bytes, path: nothing is in bytes or path"),
        (5, "video_form: a video cannot be a int"),
        ("data:video/mp4;base64,????", "video_decode: "),
        ("data:video/jpeg;base64,/9j/,/9j/", "video_form: a data: URL of video/jpeg holds frames as images"),
        (base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(100)).decode(), "video_not_found: "),
        ([VIDEO] * 2, "video_too_large: 536 bytes in all videos of the row; the limit is 300 bytes"),
        ("http://other.org/a.mp4", "url_not_allowed: "),
    ],
    ids=str,
)
def test_what_cannot_be_read_is_an_error_of_videos(
    cell: Any, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_reader, "MAX_VIDEO_BYTES", 300)
    with pytest.raises(MediaError) as caught:
        read(tmp_path, cell)
    assert str(caught.value).startswith(error)


def test_a_dead_link_is_named(tmp_path: Path, server: str) -> None:
    with pytest.raises(MediaError, match=r"url_failed: .*HTTP status 404"):
        read(tmp_path, f"http://{server}/gone.avi", server)
