"""A stand-in for the Hub: a server of the part of its API by which a repository is looked at and read in place."""

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from huggingface_hub import HfFileSystem, constants


class Hub(http.server.ThreadingHTTPServer):
    """One repository, `datasets/org/rows`, with the commits that were pushed to its branch `main`.

    Attributes:
        commits: folders by commit, the newest last.
        ranges: the parts of files that were asked for, as (path, bytes).
        failures: how many requests are answered by 503 from now on.
    """

    daemon_threads = True

    def __init__(self) -> None:
        self.commits: dict[str, Path] = {}
        self.ranges: list[tuple[str, str]] = []
        self.failures = 0
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def push(self, folder: Path) -> str:
        commit = f"{len(self.commits) + 1:040x}"
        self.commits[commit] = folder
        return commit

    def folder(self, revision: str) -> tuple[str, Path] | None:
        commit = list(self.commits)[-1] if revision in ("main", "refs/convert/parquet") else revision
        return (commit, self.commits[commit]) if commit in self.commits else None


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits 40 ms for the receipt of its head

    def do_GET(self) -> None:
        if self.server.failures:
            self.server.failures -= 1
            self._answer(503)
            return
        path, _, query = unquote(self.path).partition("?")
        api, resolve = "/api/datasets/org/rows", "/datasets/org/rows/resolve/"
        if path == api or path.startswith(f"{api}/revision/"):
            self._info(path.partition("/revision/")[2] or "main")
        elif path.startswith(f"{api}/tree/"):
            self._tree(*path.removeprefix(f"{api}/tree/").partition("/")[::2], "recursive=true" in query.lower())
        elif path.startswith(resolve):
            self._file(*path.removeprefix(resolve).partition("/")[::2])
        else:
            self._missing("Repo")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        asked = json.loads(self.rfile.read(length)) if length else {}
        found = self.server.folder(self.path.rpartition("/paths-info/")[2])
        assert found is not None
        paths = [found[1] / path for path in asked["paths"]]
        self._json([_entry(found[1], path) for path in paths if path.exists()])

    def _info(self, revision: str) -> None:
        found = self.server.folder(revision)
        if found is None:
            self._missing("Revision")
        else:
            self._json({"id": "org/rows", "sha": found[0], "siblings": [], "tags": [], "private": False})

    def _tree(self, revision: str, path: str, recursive: bool) -> None:
        found = self.server.folder(revision)
        if found is None or not (found[1] / path).is_dir():
            self._missing("Entry" if found else "Revision")
            return
        inside = (found[1] / path).rglob("*") if recursive else (found[1] / path).iterdir()
        self._json([_entry(found[1], one) for one in sorted(inside)])

    def _file(self, revision: str, path: str) -> None:
        found = self.server.folder(revision)
        if found is None or not (found[1] / path).is_file():
            self._missing("Entry")
            return
        content = (found[1] / path).read_bytes()
        asked = self.headers.get("Range", "")
        first, last = asked.removeprefix("bytes=").split("-") if asked else ("0", str(len(content) - 1))
        self.server.ranges.append((path, asked))
        part = content[int(first) : int(last) + 1]
        self._answer(206 if asked else 200, part, {"Content-Range": f"bytes {first}-{last}/{len(content)}"})

    def _missing(self, what: str) -> None:
        self._answer(404, headers={"X-Error-Code": f"{what}NotFound", "X-Error-Message": f"{what} not found"})

    def _json(self, content: Any) -> None:
        self._answer(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, content: bytes = b"", headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        pass


def _entry(root: Path, path: Path) -> dict[str, Any]:
    name = str(path.relative_to(root))
    if path.is_dir():
        return {"type": "directory", "path": name, "oid": "0" * 40}
    return {"type": "file", "path": name, "oid": "0" * 40, "size": path.stat().st_size}


@contextmanager
def serving(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hub, where this process finds the one that it knows."""
    with Hub() as hub:
        threading.Thread(target=hub.serve_forever, args=(0.01,), daemon=True).start()
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        HfFileSystem.clear_instance_cache()
        yield hub
        hub.shutdown()
    HfFileSystem.clear_instance_cache()
