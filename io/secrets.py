"""Hides secrets in text that is shown or stored: passwords and keys in URLs, tokens of the Hugging Face Hub."""

import re

HIDDEN = "***"
_CREDENTIALS = re.compile(
    # From :// to the last @ of the authority; after KEY: to the last @ of all, as keys of buckets may hold slashes.
    r"(?<=://)(?:[^/?#\s]*|[^/?#\s@:]+:(?!:|\d{1,5}(?:/|$))[^\s'\"]*)@"
)
# The whole query of an http URL, which may be a signature; elsewhere only KEY=VALUE, as `?` may be part of a glob.
_HTTP_QUERY = re.compile(r"(https?://[^\s'\"?]*)\?[^\s'\";,]*", re.IGNORECASE)
_QUERY = re.compile(r"(://[^\s'\"?]*)\?[^\s'\"/?=;,]*=[^\s'\";,]*")
_HUB_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{16,}")


def hide_secrets(text: str) -> str:
    """Replace whatever may be a secret in `text` by `***`."""
    text = _CREDENTIALS.sub(f"{HIDDEN}@", text)
    text = _QUERY.sub(rf"\1?{HIDDEN}", _HTTP_QUERY.sub(rf"\1?{HIDDEN}", text))
    return _HUB_TOKEN.sub(f"hf_{HIDDEN}", text)
