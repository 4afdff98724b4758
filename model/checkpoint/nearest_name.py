"""A hint at the known name that a mistyped one is nearest to, as the end of an error message."""

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str], prefix: str = "") -> str:
    """`; did you mean NAME?` for the nearest known name, with `prefix` before it; empty if none is near."""
    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {prefix}{nearest[0]}?" if nearest else ""


def nearest_or_all(name: str, known: Iterable[str], prefix: str = "") -> str:
    """The nearest known name as `did_you_mean` gives it; if none is near, `; known: ` and all of them."""
    names = sorted(known)
    return did_you_mean(name, names, prefix) or f"; known: {', '.join(names)}"
