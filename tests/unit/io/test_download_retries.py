"""Images by URL where hosts and networks stumble: what is tried again, how often, and on which connections."""

import multiprocessing
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from servers import PIXELS, Handler, Server, body, in_turn, reset, rules, speak_tls, status, url

from run_batch.io.media import connections
from run_batch.io.media import image_download as urls
from run_batch.io.media.allowed_hosts import HostRules
from run_batch.io.media.errors import MediaError


class KeptOpen(Server):
    """A server that keeps connections open, and counts them."""

    def __init__(self, answers: dict[str, Any]) -> None:
        super().__init__(answers)
        self.accepted = 0
        self.RequestHandlerClass = type("Handler11", (Handler,), {"protocol_version": "HTTP/1.1"})

    def process_request(self, request: Any, client_address: Any) -> None:
        self.accepted += 1
        super().process_request(request, client_address)


@pytest.fixture
def kept_open() -> Iterator[KeptOpen]:
    with KeptOpen({f"/{i}": body(PIXELS) for i in range(20)}) as started:
        threading.Thread(target=started.serve_forever, args=(0.01,), daemon=True).start()
        yield started
        started.shutdown()


def asked(server: Server, path: str) -> int:
    return sum(found == path for found, _ in server.asked)


def fetch(server: Server, path: str) -> bytes:
    return urls.fetch(url(server, path), rules(server), 1 << 20)


def error(server: Server, path: str) -> str:
    with pytest.raises(MediaError) as caught:
        fetch(server, path + "?key=s3cret")
    assert "s3cret" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(server: Server, resolver: Any, code: int) -> None:
    server.answers["/busy"] = in_turn(status(code), status(code), body(PIXELS))
    assert fetch(server, "/busy") == PIXELS and asked(server, "/busy") == 3


def test_a_server_that_stays_busy_fails_the_row_with_what_happened(server: Server, resolver: Any) -> None:
    server.answers["/busy"] = status(503)
    assert error(server, "/busy").startswith("url_failed: http://localhost/busy: HTTP status 503 (3 tries in ")


@pytest.mark.parametrize("code", [400, 401, 403, 404, 410, 501])
def test_an_answer_that_stays_as_it_is_is_not_asked_for_again(server: Server, resolver: Any, code: int) -> None:
    server.answers["/no"] = status(code)
    assert error(server, "/no") == f"url_failed: http://localhost/no: HTTP status {code}"
    assert len(server.asked) == 1


def test_as_long_as_a_server_asks_for_is_waited_and_no_longer_than_a_row_may_take(
    server: Server, resolver: Any
) -> None:
    server.answers["/second"] = in_turn(status(503, Retry_After="1"), body(PIXELS))
    started = time.monotonic()
    assert fetch(server, "/second") == PIXELS and time.monotonic() - started >= 1
    server.answers["/date"] = in_turn(status(429, Retry_After=formatdate(time.time() + 2, usegmt=True)), body(PIXELS))
    started = time.monotonic()
    assert fetch(server, "/date") == PIXELS and time.monotonic() - started >= 0.9
    server.answers["/hour"] = status(503, Retry_After="3600")
    assert "HTTP status 503, which asks to wait 3600 seconds" in error(server, "/hour")
    server.answers["/nonsense"] = in_turn(status(503, Retry_After="soon"), body(PIXELS))
    assert fetch(server, "/nonsense") == PIXELS


@pytest.mark.parametrize("broken", [reset(PIXELS[:100], len(PIXELS)), body(PIXELS[:100], len(PIXELS))])
def test_a_connection_that_breaks_off_in_an_image_is_made_anew(server: Server, resolver: Any, broken: Any) -> None:
    server.answers["/image"] = in_turn(broken, lambda request: None, body(PIXELS))
    assert fetch(server, "/image") == PIXELS and asked(server, "/image") == 3
    server.answers["/image"] = broken
    assert "(3 tries in " in error(server, "/image")


def test_every_address_of_a_host_is_tried_and_all_are_checked(server: Server, resolver: dict[str, list[str]]) -> None:
    # Nobody listens on the first one.
    resolver["localhost"] = ["127.0.0.9", "127.0.0.1"]
    assert fetch(server, "/a.png") == PIXELS
    resolver["localhost"] = ["127.0.0.9", "127.0.0.8"]
    connections.POOLS.__init__()  # type: ignore[misc]
    assert "Connection refused" in error(server, "/a.png")


def test_an_address_that_does_not_answer_leaves_time_for_the_next(
    server: Server, resolver: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = socket.socket.connect

    def hang(self: socket.socket, address: Any) -> None:
        if address[0] == "127.0.0.9":
            time.sleep(self.gettimeout() or 60)
            raise TimeoutError("timed out")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", hang)
    monkeypatch.setattr(connections, "_CONNECT_SECONDS", 0.05)
    resolver["localhost"] = ["127.0.0.9", "127.0.0.1"]
    assert fetch(server, "/a.png") == PIXELS and len(server.asked) == 1


def test_a_connection_is_used_for_many_images_also_after_a_redirect_or_an_error(
    kept_open: KeptOpen, resolver: Any
) -> None:
    kept_open.answers |= {"/gone": status(404), "/moved": status(302, Location="/1")}
    for i in range(20):
        assert fetch(kept_open, f"/{i}") == PIXELS
    assert "404" in error(kept_open, "/gone")
    assert fetch(kept_open, "/moved") == PIXELS
    assert kept_open.accepted == 1


def test_a_connection_of_an_answer_that_was_not_read_to_its_end_is_not_used_again(
    kept_open: KeptOpen, resolver: Any
) -> None:
    kept_open.answers["/long"] = body(PIXELS)
    with pytest.raises(MediaError, match="image_too_large"):
        urls.fetch(url(kept_open, "/long"), rules(kept_open), 100)
    assert fetch(kept_open, "/1") == PIXELS and kept_open.accepted == 2


def test_a_new_connection_looks_the_name_up_again_and_a_kept_one_stays(
    kept_open: KeptOpen, resolver: dict[str, list[str]]
) -> None:
    public = HostRules(rules(kept_open).allowed, private=False)
    assert fetch(kept_open, "/1") == PIXELS
    # Rules that allow less never get a connection that was made under others.
    with pytest.raises(MediaError, match="url_not_allowed"):
        urls.fetch(url(kept_open, "/1"), public, 1 << 20)
    resolver["localhost"] = ["127.0.0.9"]
    assert fetch(kept_open, "/2") == PIXELS and kept_open.accepted == 1


def test_certificates_are_loaded_once_and_a_handshake_serves_many_images(
    kept_open: KeptOpen, resolver: dict[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[ssl.SSLContext] = []
    create = ssl.create_default_context

    def count(*arguments: Any, **options: Any) -> ssl.SSLContext:
        made.append(create(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(ssl, "create_default_context", count)
    resolver["images.example.org"] = ["127.0.0.1"]
    port = kept_open.server_address[1]
    monkeypatch.setenv("SSL_CERT_FILE", str(speak_tls(kept_open, tmp_path)))
    allowed = rules(kept_open, f"images.example.org:{port}")
    for i in range(10):
        assert urls.fetch(f"https://images.example.org:{port}/{i}", allowed, 1 << 20) == PIXELS
    connections.POOLS.pool("https", "elsewhere.example.org", 443, private=False)
    assert len(made) == 1 and kept_open.accepted == 1


def test_a_host_that_is_gone_is_waited_for_by_a_few_rows_only_until_it_works_again(
    server: Server, resolver: Any
) -> None:
    server.answers["/busy"] = status(503)
    for _ in range(3):
        assert "(3 tries in " in error(server, "/busy")
    before = len(server.asked)
    assert error(server, "/busy") == "url_failed: http://localhost/busy: HTTP status 503"
    assert len(server.asked) == before + 1
    assert fetch(server, "/a.png") == PIXELS
    assert "(3 tries in " in error(server, "/busy")


def test_a_forked_process_makes_connections_of_its_own(kept_open: KeptOpen, resolver: Any) -> None:
    assert fetch(kept_open, "/1") == PIXELS
    child = multiprocessing.get_context("fork").Process(target=fetch, args=(kept_open, "/2"))
    child.start()
    child.join(20)
    assert child.exitcode == 0 and kept_open.accepted == 2
    assert fetch(kept_open, "/3") == PIXELS and kept_open.accepted == 2


def test_a_name_that_the_resolver_cannot_tell_now_is_asked_for_again(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[Any] = [socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")]

    def look_up(host: str, port: int, **_: Any) -> list[Any]:
        if answers:
            raise answers.pop()
        return [(0, 0, 0, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    assert fetch(server, "/a.png") == PIXELS
    answers += [socket.gaierror(socket.EAI_NONAME, "Name or service not known")]
    connections.POOLS.__init__()  # type: ignore[misc]
    assert error(server, "/a.png") == "url_failed: localhost has no address that can be found"
