"""Downloads one image by http or https, from allowed hosts only.

A name is resolved once, its address is checked, and the connection goes to that very address: the name cannot resolve
to another one in between. Each redirect is checked like the first URL. Size and time are limited. Proxies, cookies and
credentials are not used, and no error shows a query string, which may hold a secret.
"""

import contextlib
import http.client
import re
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from run_batch.io.media.allowed_hosts import DEFAULT_PORTS, HostRules, IpAddress, resolve
from run_batch.io.media.errors import MediaError

# Limit of a whole download: name resolution, connections, redirects and every byte.
FETCH_SECONDS = 30.0
MAX_REDIRECTS = 3
_REDIRECTS = {301, 302, 303, 307, 308}
_BUFFER_BYTES = 1 << 18
_MAX_URL_CHARACTERS = 8192
_SCHEME = re.compile(r"(?!data:)[a-z][a-z0-9+.-]*://", re.IGNORECASE)
# Characters on which URL parsers disagree: white space, control characters, backslashes.
_AMBIGUOUS = re.compile(r"[\x00-\x20\x7f\\]")


@dataclass(frozen=True, slots=True)
class _Target:
    scheme: str
    host: str
    port: int
    path: str
    shown: str

    @property
    def host_header(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


def is_url(text: str) -> bool:
    """Whether a string is a URL, of any scheme but data:, and no path."""
    return _SCHEME.match(text) is not None


def fetch(url: str, rules: HostRules, max_bytes: int) -> bytes:
    """Download the content of an http or https URL.

    Args:
        max_bytes: largest content that is accepted.

    Raises:
        MediaError: `url_not_allowed`, `url_failed` or `image_too_large`.
    """
    deadline = time.monotonic() + FETCH_SECONDS
    for _ in range(1 + MAX_REDIRECTS):
        target = _parse(url)
        rules.check_host(target.scheme, target.host, target.port)
        answer = _get(target, rules, max_bytes, deadline)
        if isinstance(answer, bytes):
            return answer
        try:
            url = urljoin(url, answer)
        except ValueError:
            raise MediaError("url_failed", f"{target.shown} redirects to an invalid URL") from None
    raise MediaError("url_failed", f"{target.shown} redirects once more, after {MAX_REDIRECTS} redirects")


def _parse(url: str) -> _Target:
    if len(url) > _MAX_URL_CHARACTERS or _AMBIGUOUS.search(url):
        raise MediaError(
            "url_not_allowed",
            f"a URL is up to {_MAX_URL_CHARACTERS} characters, without white space, control characters or backslashes",
        )
    try:
        parts = urlsplit(url)
        port = parts.port
        if parts.scheme not in DEFAULT_PORTS:
            raise MediaError("url_not_allowed", "only http and https URLs can be fetched")
        if parts.username is not None or parts.password is not None:
            raise MediaError("url_not_allowed", "URLs with a user name or password are not fetched")
        host = _ascii_host(parts)
    except ValueError:  # its message may quote the URL
        raise MediaError("url_not_allowed", "the URL is malformed") from None
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    shown = f"{parts.scheme}://{host}{path[:200]}"
    if parts.query:
        path += "?" + quote(parts.query, safe="/%:@!$&'()*+,;=~-._?[]")
    return _Target(parts.scheme, host, DEFAULT_PORTS[parts.scheme] if port is None else port, path, shown)


def _ascii_host(parts: SplitResult) -> str:
    host = (parts.hostname or "").removesuffix(".")
    if not host:
        raise ValueError
    return host if host.isascii() else host.encode("idna").decode("ascii")


def _get(target: _Target, rules: HostRules, max_bytes: int, deadline: float) -> bytes | str:
    """Send one request; return the body as bytes, or the target of a redirect as text."""
    address = resolve(target.host, target.port, deadline - time.monotonic(), rules.private)
    try:
        with _Socket(deadline) as opened:
            connection = http.client.HTTPConnection(target.host, target.port)
            connection.auto_open = 0  # never connect by name: only this socket's address was checked
            connection.sock = opened.connect(address, target)
            connection.request("GET", target.path, headers={"Host": target.host_header, "User-Agent": "run-batch"})
            response = connection.getresponse()
            if response.status in _REDIRECTS and response.getheader("Location"):
                return str(response.getheader("Location"))
            if response.status != 200:
                raise MediaError("url_failed", f"{target.shown}: HTTP status {response.status}")
            return _read_body(response, target, max_bytes, deadline)
    except MediaError:
        raise
    # Raised by sockets, TLS and malformed answers; a socket that is shut down at the deadline raises any of them.
    except (OSError, http.client.HTTPException, ValueError) as error:
        if time.monotonic() >= deadline:
            raise MediaError("url_failed", f"{target.shown}: not there within {FETCH_SECONDS:.0f} seconds") from None
        raise MediaError("url_failed", f"{target.shown}: {_reason(error)}") from None


class _Socket:
    """A socket that is shut down at the deadline, even while bytes still trickle in."""

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(max(deadline - time.monotonic(), 0.0), self._end)
        self._timer.daemon = True

    def __enter__(self) -> "_Socket":
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        if self._socket is not None:
            self._socket.close()

    def connect(self, address: IpAddress, target: _Target) -> socket.socket:
        """Connect to `address`; for https, verify that the server's certificate is for the target's name."""
        plain = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_STREAM)
        self._socket = plain
        plain.settimeout(max(self._deadline - time.monotonic(), 0.001))
        plain.connect((str(address), target.port))
        if target.scheme == "https":
            secure = ssl.create_default_context().wrap_socket(
                plain, server_hostname=target.host, do_handshake_on_connect=False
            )
            self._socket = secure
            secure.do_handshake()
        return self._socket

    def _end(self) -> None:
        with contextlib.suppress(OSError):  # closed already
            if self._socket is not None:
                # The method of the base class: SSLSocket's own is not safe to call from another thread.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


def _read_body(response: http.client.HTTPResponse, target: _Target, max_bytes: int, deadline: float) -> bytes:
    """Read the whole body into a buffer of fixed size: the length that a server announces is not trusted."""
    expected = response.length
    if expected is not None and expected > max_bytes:
        raise MediaError("image_too_large", f"{target.shown}: {expected:,} bytes; the limit is {max_bytes:,} bytes")
    body, buffer = bytearray(), memoryview(bytearray(_BUFFER_BYTES))
    while count := response.readinto(buffer):
        body += buffer[:count]
        if len(body) > max_bytes:
            raise MediaError("image_too_large", f"{target.shown}: more than {max_bytes:,} bytes, which is the limit")
    # Without an announced length, a socket that was shut down at the deadline looks like the end of the body.
    if time.monotonic() >= deadline:
        raise TimeoutError
    if expected is not None and len(body) < expected:
        raise MediaError("url_failed", f"{target.shown}: ended after {len(body):,} of {expected:,} bytes")
    return bytes(body)


def _reason(error: Exception) -> str:
    """Say why a download failed, without quoting the URL."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid: {error.verify_message}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"no HTTP answer that can be read ({type(error).__name__})"
