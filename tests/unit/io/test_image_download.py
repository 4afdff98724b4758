"""Images by URL: which hosts, which addresses, how much, how long. Servers are on this machine, names are made up."""

import http.server
import socket
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from servers import (
    PIXELS,
    Server,
    body,
    chunks,
    drip,
    drip_body,
    endless_chunk,
    negative_chunk,
    no_http,
    redirect,
    rules,
    speak_tls,
    url,
)

from run_batch.io import transient
from run_batch.io.media import connections
from run_batch.io.media import image_download as urls
from run_batch.io.media import image_reader as media
from run_batch.io.media import prefetch as fetching
from run_batch.io.media.allowed_hosts import HostRules, is_host_entry
from run_batch.io.media.errors import MediaError
from run_batch.io.media.image_reader import MediaReader


def error(text: str, allowed: HostRules, max_bytes: int = 1 << 20) -> str:
    with pytest.raises(MediaError) as caught:
        urls.fetch(text, allowed, max_bytes)
    return str(caught.value)


def test_an_image_of_an_allowed_host_is_fetched(server: Server, resolver: dict[str, list[str]]) -> None:
    assert urls.fetch(url(server), rules(server), 1 << 20) == PIXELS
    server.answers["/ä b/"] = server.answers["/%C3%A4%20b/"] = body(b"A")
    assert urls.fetch(url(server, "/ä%20b/?x=ü"), rules(server), 1 << 20) == b"A"
    server.answers["/100%25"] = body(b"B")
    assert urls.fetch(url(server, "/100%"), rules(server), 1 << 20) == b"B"
    port = server.server_address[1]
    del server.asked[2:]
    assert server.asked == [("/a.png", f"localhost:{port}"), ("/%C3%A4%20b/?x=%C3%BC", f"localhost:{port}")]


def test_hosts_that_are_not_listed_are_not_even_looked_up(server: Server, resolver: dict[str, list[str]]) -> None:
    resolver.clear()
    allowed = HostRules.of(["Images.Example.org", "localhost:1"], private=True)
    for refused in (
        url(server),
        "http://example.org/a.png",
        "http://images.example.org.evil.net/a.png",
        "http://evil.net/images.example.org",
        "http://images.example.org:8080/a.png",
        "http://images.example.org@evil.net/",
        "http://sub.images.example.org/",
        "http://2130706433/",
        "http://[::1]/",
        "http:///a.png",
        "https://images.example.org\\@evil.net/",
        "http://images.example.org\t/",
        "http://images.example.org:99999/",
        "http://[images.example.org/",
        "ftp://images.example.org/a.png",
        "file:///etc/passwd",
        "http://images.example.org/" + "a" * 9000,
    ):
        assert error(refused, allowed).startswith("url_not_allowed: "), refused
    assert server.asked == []


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.9.1", "10.0.0.1", "172.16.3.4", "192.168.1.1", "169.254.169.254", "100.64.0.1"),
        *("0.0.0.0", "255.255.255.255", "240.0.0.1", "224.0.0.1", "192.0.2.1", "198.18.0.1"),
        *("::1", "::", "fe80::1%eth0", "fc00::1", "fd12::1", "fec0::1", "ff02::1", "2001:db8::1", "64:ff9b:1::1"),
        *("::ffff:127.0.0.1", "::ffff:10.1.2.3", "::127.0.0.1", "64:ff9b::10.0.0.1", "2002:7f00:1::"),
        *("2001:0:4136:e378:8000:63bf:3fff:fdd2",),
    ],
)
def test_addresses_that_are_not_public_are_refused_before_any_connection(
    address: str, resolver: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("it was connected to"))
    allowed = HostRules.of(["images.example.org"], private=False)
    for answers in ([address], ["8.8.8.8", address]):
        resolver["images.example.org"] = answers
        found = error("https://images.example.org/a.png?key=s3cret", allowed)
        assert found.startswith("url_not_allowed: images.example.org leads to a private") and "s3cret" not in found


def test_the_address_that_was_checked_is_the_one_connected_to(
    server: Server, resolver: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transient, "REMOTE_PAUSES", ())
    answers = iter([["8.8.8.8"], ["127.0.0.1"]])
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, port, **_: [(0, 0, 0, "", (a, port)) for a in next(answers)]
    )
    connected: list[Any] = []

    def connect(self: socket.socket, address: Any) -> None:
        connected.append(address)
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(socket.socket, "connect", connect)
    allowed = HostRules.of(["images.example.org"], private=False)
    assert "Connection refused" in error("http://images.example.org/a.png", allowed)
    assert connected == [("8.8.8.8", 80)] and next(answers) == ["127.0.0.1"], "the name was looked up twice"


def test_public_addresses_in_every_form_are_connected_to(
    resolver: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transient, "REMOTE_PAUSES", ())
    connected: list[str] = []

    def connect(self: socket.socket, address: Any) -> None:
        connected.append(address[0])
        raise ConnectionRefusedError(111, "Connection refused")

    monkeypatch.setattr(socket.socket, "connect", connect)
    for address in ("8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"):
        resolver["images.example.org"] = [address]
        error("http://images.example.org/", HostRules.of(["images.example.org"], private=False))
    assert len(connected) == 4


def test_every_redirect_is_checked_anew(server: Server, resolver: dict[str, list[str]]) -> None:
    port = server.server_address[1]
    server.answers |= {
        "/relative": redirect("/a.png"),
        "/absolute": redirect(f"http://127.0.0.1:{port}/relative", 308),
        "/elsewhere": redirect("http://metadata.internal/?token=s3cret"),
        "/file": redirect("file:///etc/passwd"),
        "/login": redirect(f"http://user:s3cret@localhost:{port}/a.png"),
        "/private": redirect("http://inside.example.org/a.png"),
        "/1": redirect("/2"), "/2": redirect("/3"), "/3": redirect("/a.png"), "/4": redirect("/1"),
        "/bad": redirect("http://[oops/"),
    }  # fmt: skip
    assert urls.fetch(url(server, "/absolute"), rules(server), 1 << 20) == PIXELS
    assert urls.fetch(url(server, "/1"), rules(server), 1 << 20) == PIXELS
    assert "redirects once more" in error(url(server, "/4"), rules(server))
    for path in ("/elsewhere", "/file", "/login"):
        found = error(url(server, path), rules(server))
        assert found.startswith("url_not_allowed: ") and "s3cret" not in found
    assert error(url(server, "/bad"), rules(server)).startswith("url_")
    resolver["inside.example.org"] = ["10.0.0.1"]
    # The first host is on this machine: a redirect to it is refused unless private hosts are allowed.
    resolver["localhost"] = ["8.8.8.8"]
    public = HostRules.of(["inside.example.org"], private=False)
    assert "private" in error("http://inside.example.org/a.png", public)


def test_the_limit_of_bytes_holds_whatever_the_server_says(server: Server, resolver: dict[str, list[str]]) -> None:
    size = len(PIXELS)
    server.answers |= {
        "/length": body(b"", 10**15),
        "/unknown": body(PIXELS * 3, -1),
        "/chunks": chunks,
    }
    assert urls.fetch(url(server), rules(server), size) == PIXELS
    for path in ("/a.png", "/length", "/unknown", "/chunks"):
        assert error(url(server, path), rules(server), size - 1).startswith("image_too_large: ")


def test_a_chunk_of_no_size_is_not_read_into_memory_until_it_ends(
    server: Server, resolver: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(urls, "FETCH_SECONDS", 3.0)
    monkeypatch.setattr(transient, "REMOTE_PAUSES", ())
    server.answers["/endless"] = endless_chunk
    started = time.monotonic()
    error(url(server, "/endless"), rules(server), 1 << 20)
    assert time.monotonic() - started < 3, "it was read for as long as there was time"


def test_answers_that_cannot_be_used_are_said(server: Server, resolver: dict[str, list[str]]) -> None:
    server.answers |= {
        "/short": body(PIXELS[:100], len(PIXELS)),
        "/negative": negative_chunk,
        "/other": no_http,
        "/hang-up": lambda request: None,
    }
    assert "HTTP status 404" in error(url(server, "/gone?key=s3cret"), rules(server))
    for path in ("/gone", "/short", "/negative", "/other", "/hang-up"):
        found = error(url(server, path + "?key=s3cret"), rules(server))
        assert found.startswith("url_failed: ") and path in found and "s3cret" not in found
    server.server_close()
    resolver["localhost"] = []
    assert "has no address" in error(url(server), rules(server))


def test_the_time_limit_is_for_the_whole_fetch(
    server: Server, resolver: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(urls, "FETCH_SECONDS", 0.4)
    monkeypatch.setattr(transient, "REMOTE_PAUSES", ())
    server.answers |= {"/drip": drip, "/drip-body": drip_body, "/sleep": lambda request: time.sleep(2)}
    for path in ("/drip", "/drip-body", "/sleep"):
        started = time.monotonic()
        assert "not there within" in error(url(server, path), rules(server))
        assert time.monotonic() - started < 1.5
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: time.sleep(2) or [])
    assert "not found in time" in error(url(server), rules(server))


def test_tls_is_checked_against_the_name_not_the_address(
    tmp_path: Path, server: Server, resolver: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate = speak_tls(server, tmp_path)
    port = server.server_address[1]
    resolver |= {"images.example.org": ["127.0.0.1"], "other.example.org": ["127.0.0.1"]}
    allowed = rules(server, f"images.example.org:{port}", f"other.example.org:{port}")
    assert "certificate" in error(f"https://images.example.org:{port}/a.png", allowed)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    monkeypatch.setattr(connections, "POOLS", connections.ConnectionPools())  # certificates are loaded once
    assert urls.fetch(f"https://images.example.org:{port}/a.png", allowed, 1 << 20) == PIXELS
    assert server.asked[-1] == ("/a.png", f"images.example.org:{port}")
    assert "certificate" in error(f"https://other.example.org:{port}/a.png", allowed)


def test_images_of_a_batch_are_fetched_at_the_same_time_and_once_each(
    server: Server, resolver: dict[str, list[str]]
) -> None:
    together = threading.Barrier(fetching.FETCHES_AHEAD, timeout=10)

    def wait(request: http.server.BaseHTTPRequestHandler) -> None:
        together.wait()
        body(request.path.encode())(request)

    paths = [f"/{i}" for i in range(2 * fetching.FETCHES_AHEAD)]
    server.answers |= dict.fromkeys(paths, wait)
    reader = MediaReader(None, rules(server))
    cells = [url(server, path) for path in paths for _ in range(3)]
    reader.announce(cells)
    assert [list(reader.read(cell)) for cell in cells] == [[path.encode()] for path in paths for _ in range(3)]
    assert sorted(path for path, _ in server.asked) == sorted(paths)
    # What was announced and never read does not stay; what was not announced is fetched all the same.
    reader.announce(cells[:6])
    reader.announce([])
    server.answers["/late"] = body(b"late")
    assert list(reader.read([url(server, "/late"), url(server, "/late")])) == [b"late", b"late"]
    assert not reader._urls._started


def test_images_that_are_fetched_ahead_stay_within_their_bytes(
    server: Server, resolver: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    largest = 0
    sizes = [10_000] * 10 + [70_000] * 10 + [10_000] * 20
    paths = [f"/{i}" for i in range(len(sizes))]
    server.answers |= {path: body(bytes([i]) * size) for i, (path, size) in enumerate(zip(paths, sizes, strict=True))}
    reader = MediaReader(None, rules(server), bytes_ahead=100_000)
    cells = [url(server, path) for path in paths]
    reader.announce(cells)
    for index, cell in enumerate(cells):
        (content,) = reader.read(cell)
        assert content == bytes([index]) * sizes[index]
        largest = max(largest, sum(ahead.reserved for ahead in reader._urls._started.values()))
    assert 0 < largest <= 100_000
    # An image that does not fit is fetched when its row is read, and the largest allowed one is judged by that limit.
    monkeypatch.setattr(reader._urls, "_max_bytes", 200_000)
    server.answers |= {"/large": body(bytes(150_000)), "/too-large": body(bytes(250_000))}
    reader.announce([url(server, "/large"), url(server, "/too-large")])
    assert list(reader.read(url(server, "/large"))) == [bytes(150_000)]
    with pytest.raises(MediaError, match=r"image_too_large: .*200,000"):
        list(reader.read(url(server, "/too-large")))


def test_without_allowed_hosts_no_url_is_fetched(tmp_path: Path) -> None:
    for text in ("https://example.org/a.png", "file:///etc/passwd", "s3://key:s3cret@bucket/a.png"):
        with pytest.raises(MediaError, match="url_not_allowed: ") as caught:
            list(MediaReader(tmp_path).read(text))
        assert "s3cret" not in str(caught.value)
    assert media.MAX_BYTES == 128 << 20


def test_what_can_stand_in_allowed_hosts() -> None:
    for entry in ("images.example.org", "localhost:8000", "10.0.0.1", "[::1]", "[::1]:80", "Example.ORG.", "xn--a.b"):
        assert is_host_entry(entry), entry
    for entry in ("", "https://example.org", "example.org/", "*.example.org", "a b", "a:b", "a:0", "a:99999", "[::1]80",
                  "u@h", "[x]", "é.org", ":80", "a..b", "a" * 300):  # fmt: skip
        assert not is_host_entry(entry), entry
