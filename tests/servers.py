"""HTTP servers on this machine, for tests."""

import contextlib
import http.server
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from run_batch.io.media.allowed_hosts import HostRules

Answer = Callable[[http.server.BaseHTTPRequestHandler], None]
PIXELS = b"\x89PNG" + bytes(range(256)) * 300


class Server(http.server.ThreadingHTTPServer):
    """Answers by path, and keeps what it was asked for."""

    daemon_threads = True

    def __init__(self, answers: dict[str, Answer]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, str]] = []
        super().__init__(("127.0.0.1", 0), Handler)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is what many tests are about."""


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers["Host"]))
        self.server.answers[self.path.partition("?")[0]](self)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def rules(server: Server, *hosts: str, private: bool = True) -> HostRules:
    port = server.server_address[1]
    return HostRules.of([*hosts, f"localhost:{port}", f"127.0.0.1:{port}"], private)


def url(server: Server, path: str = "/a.png", host: str = "localhost") -> str:
    return f"http://{host}:{server.server_address[1]}{path}"


def body(content: bytes, length: int | None = None) -> Answer:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        if length is None or length >= 0:
            request.send_header("Content-Length", str(len(content) if length is None else length))
        request.end_headers()
        request.wfile.write(content)

    return answer


def redirect(location: str, status: int = 302) -> Answer:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(status)
        request.send_header("Location", location)
        request.end_headers()

    return answer


def status(code: int, **headers: str) -> Answer:
    """An answer without a body; `Retry_After="1"` is the header Retry-After."""

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(code)
        for name, value in {"Content-Length": "0", **headers}.items():
            request.send_header(name.replace("_", "-"), value)
        request.end_headers()

    return answer


def reset(content: bytes, length: int) -> Answer:
    """Some bytes of a body of `length`, then a reset of the connection."""

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        body(content, length)(request)
        request.wfile.flush()
        request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        request.connection.close()

    return answer


def in_turn(*answers: Answer) -> Answer:
    """One answer after the other, the last one from then on."""
    left = list(answers)

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        (left.pop(0) if len(left) > 1 else left[0])(request)

    return answer


def drip(request: http.server.BaseHTTPRequestHandler) -> None:
    """A byte now and then, for ever: no single wait is long."""
    request.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
    with contextlib.suppress(OSError):
        while True:
            request.wfile.write(b"x")
            time.sleep(0.05)


def drip_body(request: http.server.BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"HTTP/1.0 200 OK\r\n\r\n")
    drip(request)


def chunks(request: http.server.BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(4):
        request.wfile.write(b"%x\r\n" % len(PIXELS) + PIXELS + b"\r\n")
    request.wfile.write(b"0\r\n\r\n")


def negative_chunk(request: http.server.BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n" + PIXELS)


def endless_chunk(request: http.server.BaseHTTPRequestHandler) -> None:
    """A chunk whose size reads as "all that comes"."""
    request.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n")
    with contextlib.suppress(OSError):
        while True:
            request.wfile.write(PIXELS)


def no_http(request: http.server.BaseHTTPRequestHandler) -> None:
    request.wfile.write(b"\x00\x01 nothing of the kind\r\n\r\n")


def speak_tls(server: Server, folder: Path) -> Path:
    """Let a server speak TLS; the file of its certificate, which is for images.example.org."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    names = ["-subj", "/CN=images.example.org", "-addext", "subjectAltName=DNS:images.example.org"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    return certificate


@contextmanager
def file_server(content: bytes, secret: str) -> Iterator[int]:
    """Serves `content`, in parts too, to whoever has `secret` in the URL's query; gives its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if secret not in self.path:
                self.send_error(403)
                return
            asked = self.headers.get("Range")
            first, last = (asked or f"bytes=0-{len(content) - 1}").partition("=")[2].split("-")
            part = content[int(first) : int(last) + 1]
            self.send_response(206 if asked else 200)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(len(part)))
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
            self.end_headers()
            self.wfile.write(part if self.command == "GET" else b"")

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()
