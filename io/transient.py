"""Failures of storage and networks that may pass: which they are, and how what is safe to repeat is tried again.

The libraries behind remote file systems are known by the names of their exceptions: none of them is imported here.
"""

import errno
import random
import re
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

# Seconds between the tries of a request to another machine; half as long to one and a half times as long, so that a
# thousand processes do not come back at the same moment.
REMOTE_PAUSES: Sequence[float] = (0.5, 1.0, 2.0, 4.0, 8.0, 15.0)
# The same for a file system that is mounted: it has tried for a while itself before it reports an error.
STORAGE_PAUSES: Sequence[float] = (0.1, 0.4, 1.5)
# HTTP statuses of a server that is busy, or that fails behind its gateway.
PASSING_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})
_REFUSALS = frozenset({401, 403, 407, 451})

_PASSING_ERRNOS = frozenset(
    {
        *(errno.ESTALE, errno.EREMOTEIO, errno.ENOLINK, errno.ECOMM, errno.EAGAIN, errno.EINTR, errno.EBUSY),
        *(errno.ETIMEDOUT, errno.ECONNRESET, errno.ECONNABORTED, errno.ECONNREFUSED, errno.ENOTCONN, errno.ESHUTDOWN),
        *(errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH, errno.ENETRESET, errno.EPIPE),
    }
)
# Top-level package and class; their subclasses count too.
_PASSING_CLASSES = frozenset(
    {
        *("aiohttp.ClientConnectionError", "aiohttp.ClientPayloadError", "http.IncompleteRead"),
        *("requests.ConnectionError", "requests.Timeout", "requests.ChunkedEncodingError"),
        *("urllib3.ProtocolError", "urllib3.TimeoutError", "urllib3.NewConnectionError"),
        *("httpx2.TransportError", "httpx.TransportError"),
        *("httpcore.NetworkError", "httpcore.TimeoutException", "httpcore.RemoteProtocolError"),
        *("botocore.HTTPClientError", "botocore.ConnectionError", "botocore.IncompleteReadError"),
        *("azure.ServiceRequestError", "azure.ServiceResponseError", "google.TransportError"),
    }
)
# Connection errors by their base class that stay as they are: the Hub was not even asked.
_LASTING_CLASSES = frozenset({"OfflineModeIsEnabled"})

# Of botocore.
_NO_CREDENTIALS = frozenset({"NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError"})

T = TypeVar("T")


def may_pass(error: BaseException) -> bool:
    """Whether an exception, or one that it was raised from, is a failure of storage or network that may pass."""
    causes = list(_causes(error))
    return any(map(_is_passing, causes)) and not any(map(_is_lasting, causes))


def passing_cause(error: BaseException) -> BaseException:
    """The failure that may pass, of an exception and those that it was raised from."""
    return next(filter(_is_passing, _causes(error)), error)


def refusal(error: BaseException) -> BaseException | None:
    """Of an exception and those that it was raised from, the one that says that something may not be read, if any."""
    causes = _causes(error)
    return next((cause for cause in causes if isinstance(cause, PermissionError) or _status(cause) in _REFUSALS), None)


def _causes(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__


def _is_lasting(error: BaseException) -> bool:
    """Whether nobody was asked at all. `datasets` names the class of the cause in its text alone."""
    words = {word for text in error.args if isinstance(text, str) for word in re.findall(r"\w+", text)}
    return not _LASTING_CLASSES.isdisjoint({type(error).__name__, *words})


def _is_passing(error: BaseException) -> bool:
    if isinstance(error, ssl.SSLCertVerificationError) or _is_lasting(error):
        return False
    if isinstance(error, ConnectionError | TimeoutError) or _status(error) in PASSING_STATUSES:
        return True
    if isinstance(error, OSError) and error.errno in _PASSING_ERRNOS:
        return True
    return not _PASSING_CLASSES.isdisjoint(
        f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(error).__mro__
    )


def _status(error: BaseException) -> int | None:
    """The HTTP status that an exception of a library tells of, if any."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):  # botocore's
        found: object = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return found if isinstance(found, int) else None
    for name in ("status", "status_code", "code"):
        for holder in (error, response):
            found = getattr(holder, name, None)
            if isinstance(found, int):
                return found
    return None


def jittered(pauses: Sequence[float]) -> Iterator[float]:
    """The pauses, each made shorter or longer by chance."""
    return (pause * random.uniform(0.5, 1.5) for pause in pauses)


def retry(action: Callable[[], T], pauses: Sequence[float] | None = None) -> T:
    """Call `action`, and again while it fails by what may pass.

    Args:
        action: safe to repeat, whether or not a failed call had an effect.
        pauses: seconds between the tries; `STORAGE_PAUSES` when left out.

    Raises:
        Exception: what `action` raises at its last try, or that cannot pass.
    """
    for pause in jittered(STORAGE_PAUSES if pauses is None else pauses):
        try:
            return action()
        except Exception as error:
            if not may_pass(error):
                raise
        time.sleep(pause)
    return action()


def describe(error: BaseException) -> str:
    """What happened, on one line: the system's words where it has some, else the exception's."""
    if type(error).__name__ in _NO_CREDENTIALS:
        return (
            "no credentials for S3 were found; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, on "
            "every machine of the job"
        )
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
