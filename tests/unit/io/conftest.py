"""Fixtures of the tests of io/."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import PIXELS, Server, body

from run_batch.io import transient
from run_batch.io.media import connections, image_download
from run_batch.io.media.host_failures import HostFailures

Interrupt = Callable[[str, Callable[[], None]], None]


@pytest.fixture
def just_before_creating(monkeypatch: pytest.MonkeyPatch) -> Interrupt:
    """Lets other processes act, once, between the decision to create a file of some name and its creation."""

    def interrupt(name: str, act: Callable[[], None]) -> None:
        create, acts = os.open, [act]

        def create_late(path: Any, flags: int, *arguments: Any, **named: Any) -> int:
            if acts and flags & os.O_EXCL and Path(path).name == name:
                acts.pop()()
            return create(path, flags, *arguments, **named)

        monkeypatch.setattr(os, "open", create_late)

    return interrupt


@pytest.fixture(autouse=True)
def fresh_downloads(monkeypatch: pytest.MonkeyPatch) -> None:
    """No connections or failures of other tests, and tries without long pauses."""
    monkeypatch.setattr(connections, "POOLS", connections.ConnectionPools())
    monkeypatch.setattr(image_download, "_HOST_FAILURES", HostFailures())
    monkeypatch.setattr(transient, "REMOTE_PAUSES", (0.01, 0.02))
    monkeypatch.setattr(transient, "STORAGE_PAUSES", (0.01, 0.02))


@pytest.fixture
def server() -> Iterator[Server]:
    with Server({"/a.png": body(PIXELS), "/gone": lambda request: request.send_error(404)}) as started:
        threading.Thread(target=started.serve_forever, args=(0.01,), daemon=True).start()
        yield started
        started.shutdown()


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What names lead to; asking for any other name fails the test."""
    names: dict[str, list[str]] = {"localhost": ["127.0.0.1"], "127.0.0.1": ["127.0.0.1"]}

    def look_up(host: str, port: int, **_: Any) -> list[Any]:
        return [(0, 0, 0, "", (address, port)) for address in names[host]]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return names
