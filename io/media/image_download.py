"""Downloads one image by http or https, from allowed hosts only.

Connections go to addresses that were checked (connections.py), and each redirect is checked like the first URL. Size
and time are limited. What may pass is tried again: a server that is busy, a connection that breaks off. Proxies,
cookies and credentials are not used, and no error shows a query string, which may hold a secret.
"""

import contextlib
import http.client
import re
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import SplitResult, quote, urljoin, urlsplit

import urllib3

from run_batch.io import transient
from run_batch.io.media import connections
from run_batch.io.media.allowed_hosts import DEFAULT_PORTS, HostRules
from run_batch.io.media.connections import Deadline
from run_batch.io.media.errors import MediaError
from run_batch.io.media.host_failures import HostFailures
from run_batch.io.transient import PASSING_STATUSES, jittered, may_pass

# Limit of one try of a download: name resolution, connections, redirects and every byte.
FETCH_SECONDS = 30.0
# A try begins no later than this after the first one.
RETRY_SECONDS = 60.0
MAX_REDIRECTS = 3
_REDIRECTS = {301, 302, 303, 307, 308}
_BUFFER_BYTES = 1 << 18
# What an answer that is no image may hold at most, to be read for the sake of its connection.
_DRAINED_BYTES = 1 << 16
_MAX_URL_CHARACTERS = 8192
_SCHEME = re.compile(r"(?!data:)[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
# Characters on which URL parsers disagree: white space, control characters, backslashes.
_AMBIGUOUS = re.compile(r"[\x00-\x20\x7f\\]")

_HOST_FAILURES = HostFailures()


class _PassingError(Exception):
    """A try failed in a way that may pass.

    Attributes:
        message: what happened.
        pause: seconds for which the server asks to be left alone; None if it does not say.
    """

    def __init__(self, message: str, pause: float | None = None) -> None:
        super().__init__(message)
        self.message, self.pause = message, pause


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
    started, tries = time.monotonic(), 0
    host = _parse(url).host_header
    pauses = iter(()) if _HOST_FAILURES.are_lasting(host) else jittered(transient.REMOTE_PAUSES)
    while True:
        tries += 1
        try:
            content = _try(url, rules, max_bytes)
        except _PassingError as error:
            pause = _pause(pauses, error.pause, started + RETRY_SECONDS - time.monotonic())
            if pause is None:
                _HOST_FAILURES.count(host, has_failed=True)
                raise MediaError("url_failed", error.message + _told(tries, started)) from error.__cause__
            time.sleep(pause)
        except MediaError:
            _HOST_FAILURES.count(host, has_failed=False)
            raise
        else:
            _HOST_FAILURES.count(host, has_failed=False)
            return content


def _pause(pauses: Iterator[float], asked: float | None, left: float) -> float | None:
    """Seconds to wait before the next try; None for no other try.

    Args:
        asked: what the server asks for; less is not waited.
        left: seconds in which a try may begin.
    """
    pause = next(pauses, None)
    if pause is None or max(pause, asked or 0.0) > left:
        return None
    return max(pause, asked or 0.0)


def _told(tries: int, started: float) -> str:
    return f" ({tries} tries in {time.monotonic() - started:.0f} s)" if tries > 1 else ""


def _try(url: str, rules: HostRules, max_bytes: int) -> bytes:
    """Download once, with all redirects; raises _PassingError where another try may help."""
    deadline = Deadline(time.monotonic() + FETCH_SECONDS)
    with deadline.running():
        for _ in range(1 + MAX_REDIRECTS):
            target = _parse(url)
            rules.check_host(target.scheme, target.host, target.port)
            with _failures_told(target, deadline):
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
            raise MediaError(
                "url_not_allowed",
                "only URLs of http, https, s3, gs and az can be fetched",
            )
        if parts.username is not None or parts.password is not None:
            raise MediaError("url_not_allowed", "URLs with a user name or password are not fetched")
        host = _ascii_host(parts)
    except ValueError:  # its message may quote the URL
        raise MediaError("url_not_allowed", "the URL is malformed") from None
    path = quote(_STRAY_PERCENT.sub("%25", parts.path) or "/", safe="/%:@!$&'()*+,;=~-._")
    shown = f"{parts.scheme}://{host}{path[:200]}"
    if parts.query:
        path += "?" + quote(_STRAY_PERCENT.sub("%25", parts.query), safe="/%:@!$&'()*+,;=~-._?[]")
    return _Target(parts.scheme, host, DEFAULT_PORTS[parts.scheme] if port is None else port, path, shown)


def _ascii_host(parts: SplitResult) -> str:
    host = (parts.hostname or "").removesuffix(".")
    if not host:
        raise ValueError
    return host if host.isascii() else host.encode("idna").decode("ascii")


@contextlib.contextmanager
def _failures_told(target: _Target, deadline: Deadline) -> Iterator[None]:
    """Around one request and its answer: says what happened, without quoting the URL."""
    try:
        yield
    except (MediaError, _PassingError):
        raise
    # Raised by sockets, TLS and malformed answers; a socket that is shut down at the deadline raises any of them.
    except (OSError, http.client.HTTPException, urllib3.exceptions.HTTPError, ValueError) as error:
        root = _root(error)
        if not deadline.left:
            raise _PassingError(f"{target.shown}: not there within {FETCH_SECONDS:.0f} seconds") from root
        message = f"{target.shown}: {_reason(root)}"
        if may_pass(root):
            raise _PassingError(message) from root
        raise MediaError("url_failed", message) from root


def _get(target: _Target, rules: HostRules, max_bytes: int, deadline: Deadline) -> bytes | str:
    """Send one request; return the body as bytes, or the target of a redirect as text."""
    pool = connections.POOLS.pool(target.scheme, target.host, target.port, rules.private)
    response = pool.urlopen(
        "GET",
        target.path,
        headers={"Host": target.host_header, "User-Agent": "run-batch", "Accept-Encoding": "identity"},
        retries=False,
        redirect=False,
        assert_same_host=False,
        timeout=urllib3.Timeout(total=max(deadline.left, 0.001)),
        preload_content=False,
        decode_content=False,
    )
    try:
        if response.status in _REDIRECTS and response.headers.get("Location"):
            _drain(response)
            return str(response.headers["Location"])
        if response.status != 200:
            _drain(response)
            raise _status_error(target, response)
        return _read_body(response, target, max_bytes, deadline)
    except BaseException:
        response.close()  # closes the connection, which has bytes left that nobody reads
        raise
    finally:
        response.release_conn()


def _status_error(target: _Target, response: urllib3.BaseHTTPResponse) -> MediaError | _PassingError:
    message = f"{target.shown}: HTTP status {response.status}"
    if response.status not in PASSING_STATUSES:
        return MediaError("url_failed", message)
    asked: float | None = None
    with contextlib.suppress(urllib3.exceptions.InvalidHeader):
        asked = urllib3.Retry().get_retry_after(response)
    if asked is not None and asked > RETRY_SECONDS:
        message += f", which asks to wait {asked:.0f} seconds"
    return _PassingError(message, asked)


def _drain(response: urllib3.BaseHTTPResponse) -> None:
    """Read a short body that nobody wants, so that its connection can be used again; close that of a longer one."""
    length = response.headers.get("Content-Length", "")
    if not length.isascii() or not length.isdigit() or int(length[:9]) > _DRAINED_BYTES:
        response.close()
        return
    with contextlib.suppress(OSError, http.client.HTTPException, urllib3.exceptions.HTTPError):
        response.read(_DRAINED_BYTES)


def _read_body(response: urllib3.BaseHTTPResponse, target: _Target, max_bytes: int, deadline: Deadline) -> bytes:
    """Read the whole body, in parts of fixed size: the length that a server announces is not trusted."""
    expected = response.length_remaining if isinstance(response, urllib3.HTTPResponse) else None
    if expected is not None and expected > max_bytes:
        raise MediaError("image_too_large", f"{target.shown}: {expected:,} bytes; the limit is {max_bytes:,} bytes")
    body = bytearray()
    while part := response.read(_BUFFER_BYTES):
        body += part
        if len(body) > max_bytes:
            raise MediaError("image_too_large", f"{target.shown}: more than {max_bytes:,} bytes, which is the limit")
    # Without an announced length, a socket that was shut down at the deadline looks like the end of the body.
    if not deadline.left:
        raise TimeoutError
    return bytes(body)


def _root(error: Exception) -> Exception:
    """What a socket or the parser raised, out of the exceptions that urllib3 wraps it in."""
    while isinstance(error, urllib3.exceptions.HTTPError):
        inner = [found for found in (*error.args, error.__cause__, error.__context__) if isinstance(found, Exception)]
        if not inner:
            break
        error = inner[0]
    return error


def _reason(error: Exception) -> str:
    """Say why a download failed, without quoting the URL."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not valid: {error.verify_message}"
    if isinstance(error, http.client.RemoteDisconnected):
        return "the server closed the connection without an answer"
    if isinstance(error, http.client.IncompleteRead):
        came = error.partial if isinstance(error.partial, int) else len(error.partial)
        return f"ended after {came:,} of {came + error.expected:,} bytes" if error.expected else "its body is cut off"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return f"no HTTP answer that can be read ({type(error).__name__})"
