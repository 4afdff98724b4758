"""Downloads one image from a store of objects (`s3://`, `gs://`, `az://`), from allowed buckets only.

An object is asked for once, by a range that ends a byte behind what is accepted. Credentials are those of the store's
own client; no row can name any. What may pass is tried again.
"""

from urllib.parse import unquote

from run_batch.io import transient
from run_batch.io.media.allowed_hosts import HostRules
from run_batch.io.media.errors import MediaError
from run_batch.io.media.host_failures import HostFailures
from run_batch.io.media.image_download import FETCH_SECONDS
from run_batch.io.object_stores import store_of_process
from run_batch.io.transient import describe, may_pass, refusal, retry

_MAX_KEY_BYTES = 1024
_SHOWN_CHARACTERS = 200
_FAILURES = HostFailures()


def fetch_object(url: str, rules: HostRules, max_bytes: int) -> bytes:
    """Download an object.

    Args:
        max_bytes: largest content that is accepted.

    Raises:
        MediaError: `url_not_allowed`, `image_not_found`, `url_failed` or `image_too_large`.
    """
    bucket, path = _parse(url)
    rules.check_object(url)
    shown = url[:_SHOWN_CHARACTERS]
    pauses = () if _FAILURES.are_lasting(bucket) else transient.REMOTE_PAUSES
    try:
        content = retry(lambda: _fetch(bucket, path, max_bytes), pauses)
    except Exception as error:  # every file system has errors of its own
        _FAILURES.count(bucket, has_failed=may_pass(error))
        if isinstance(error, FileNotFoundError) and not may_pass(error):
            raise MediaError("image_not_found", f"no object {shown}") from None
        raise MediaError("url_failed", f"{shown}: {describe(refusal(error) or error)}") from error
    _FAILURES.count(bucket, has_failed=False)
    if len(content) > max_bytes:
        raise MediaError("image_too_large", f"{shown}: more than {max_bytes:,} bytes, which is the limit")
    return content


def _fetch(bucket: str, path: str, max_bytes: int) -> bytes:
    content: bytes = store_of_process(bucket).cat_file(path, start=0, end=max_bytes + 1, timeout=FETCH_SECONDS)
    return content


def _parse(url: str) -> tuple[str, str]:
    """The URL of an object's bucket, and the object's path for its file system.

    Raises:
        MediaError: `url_not_allowed`: it is no plain URL of an object.
    """
    scheme, _, rest = url.partition("://")
    bucket, _, key = rest.partition("/")
    if not bucket or not key or "::" in url or "\0" in url or "@" in bucket or len(key.encode()) > _MAX_KEY_BYTES:
        raise MediaError("url_not_allowed", "an object's URL is scheme://bucket/key, with a key of 1 to 1024 bytes")
    if any(part in (".", "..") for part in unquote(key).split("/")):
        raise MediaError("url_not_allowed", "the key of an object's URL has a part . or ..")
    return f"{scheme.lower()}://{bucket}", rest
