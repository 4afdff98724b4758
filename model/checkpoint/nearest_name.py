"""The known name nearest to one that was mistyped."""

import difflib
from typing import Any


def did_you_mean(name: str, known: Any, prefix: str = "") -> str:
    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {prefix}{nearest[0]}?" if nearest else f"; known: {', '.join(sorted(known))}"
