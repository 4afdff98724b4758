"""Which hosts have failed several images in succession: of these, an image is not tried again until one works."""

import threading
from collections import Counter

# So many images of a host in succession; one that works ends the series.
_IN_SUCCESSION = 3


class HostFailures:
    """Counts, for each host, the images in succession that failed in a way that may pass, after all their tries.

    Where a host is gone for good, a million rows must not each wait for it as long as the first. Used from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def are_lasting(self, host: str) -> bool:
        """Whether another try of an image of this host is not worth the wait."""
        return self._counts[host] >= _IN_SUCCESSION

    def count(self, host: str, has_failed: bool) -> None:
        """Count an image of a host: it failed for good, or the host has answered."""
        with self._lock:
            if has_failed:
                self._counts[host] += 1
            else:
                self._counts.pop(host, None)
