"""Secrets out of text that people and files get to see: passwords and keys in URLs, tokens of the Hub."""

import re

HIDDEN = "***"
_CREDENTIALS = re.compile(
    # From :// to the last @ of the authority; as keys of buckets may hold slashes, after KEY: to the last @ of all.
    r"(?<=://)(?:[^/?#\s]*|[^/?#\s@:]+:(?!:|\d{1,5}(?:/|$))[^\s'\"]*)@"
)
# Of http URLs the whole query, which may be a signature; elsewhere `?` may be part of a pattern, so only KEY=VALUE.
_HTTP_QUERY = re.compile(r"(https?://[^\s'\"?]*)\?[^\s'\";,]*", re.IGNORECASE)
_QUERY = re.compile(r"(://[^\s'\"?]*)\?[^\s'\"/?=;,]*=[^\s'\";,]*")
_HUB_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{16,}")


def hide_secrets(text: str) -> str:
    """`text` with what may be a secret in it replaced."""
    text = _CREDENTIALS.sub(f"{HIDDEN}@", text)
    text = _QUERY.sub(rf"\1?{HIDDEN}", _HTTP_QUERY.sub(rf"\1?{HIDDEN}", text))
    return _HUB_TOKEN.sub(f"hf_{HIDDEN}", text)
