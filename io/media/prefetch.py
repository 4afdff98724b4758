"""Downloads images ahead of the rows that need them: several at once, few enough to bound what waits in memory.

An image that is larger than its part of that memory is not downloaded ahead, but when its row is read.
"""

from collections import Counter, deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from run_batch.io.media.allowed_hosts import HostRules
from run_batch.io.media.errors import MediaError
from run_batch.io.media.image_download import fetch
from run_batch.io.media.object_download import fetch_object
from run_batch.io.object_stores import is_object_url

# Downloads that run or wait to be read, per worker process.
FETCHES_AHEAD = 8


@dataclass(frozen=True, slots=True)
class _Download:
    """One download that runs, or waits to be read.

    Attributes:
        most_bytes: it fails when it has more.
    """

    content: Future[bytes]
    most_bytes: int

    @property
    def reserved(self) -> int:
        """Bytes that it has, or may still get."""
        if not self.content.done():
            return self.most_bytes
        is_there = not self.content.cancelled() and self.content.exception() is None
        return len(self.content.result()) if is_there else 0


class UrlFetcher:
    """Downloads URLs in threads, in the order in which they will be read.

    Args:
        max_bytes: largest content that is accepted.
        bytes_ahead: of downloads that run or wait to be read, all together.
    """

    def __init__(self, rules: HostRules, max_bytes: int, bytes_ahead: int) -> None:
        self._rules = rules
        self._max_bytes = max_bytes
        self._bytes_ahead = bytes_ahead
        # Of what was read last: as many downloads run at once as fit with twice that.
        self._largest = 0
        self._uses: Counter[str] = Counter()
        self._waiting: deque[str] = deque()
        self._started: dict[str, _Download] = {}
        self._pool: ThreadPoolExecutor | None = None

    def announce(self, urls: Iterable[str]) -> None:
        """Start to download what will be read next; drop what was announced before and not read."""
        for download in self._started.values():
            download.content.cancel()
        self._started.clear()
        self._uses = Counter(urls)
        self._waiting = deque(self._uses)
        self._start_some()

    def read(self, url: str) -> bytes:
        """Return the content of `url`, waiting for its download; it need not have been announced.

        Raises:
            MediaError: see `fetch` of image_download.py and `fetch_object` of object_download.py.
        """
        try:
            content = self._content_of(url)
            self._largest = max(len(content), self._largest // 2)
            return content
        finally:
            self._uses[url] -= 1
            if self._uses[url] <= 0:
                self._started.pop(url, None)
            self._start_some()

    def _content_of(self, url: str) -> bytes:
        ahead = self._started.get(url)
        if ahead is not None:
            try:
                return ahead.content.result()
            except MediaError as error:
                if error.kind != "image_too_large" or ahead.most_bytes >= self._max_bytes:
                    raise
        return self._start(url, self._max_bytes).content.result()

    def _start_some(self) -> None:
        at_once = max(1, min(FETCHES_AHEAD, self._bytes_ahead // max(1, 2 * self._largest)))
        most_bytes = min(self._max_bytes, self._bytes_ahead // at_once)
        while self._waiting and len(self._started) < FETCHES_AHEAD:
            reserved = sum(download.reserved for download in self._started.values())
            if reserved and reserved + most_bytes > self._bytes_ahead:
                return
            url = self._waiting.popleft()
            if url not in self._started and self._uses[url] > 0:
                self._start(url, most_bytes)

    def _start(self, url: str, most_bytes: int) -> _Download:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(max_workers=FETCHES_AHEAD, thread_name_prefix="fetch")
        content = self._pool.submit(fetch_object if is_object_url(url) else fetch, url, self._rules, most_bytes)
        self._started[url] = _Download(content, most_bytes)
        return self._started[url]
