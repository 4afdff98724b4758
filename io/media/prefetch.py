"""Downloads images ahead of the rows that need them: several at once, few enough to bound what waits in memory."""

from collections import Counter, deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from run_batch.io.media.allowed_hosts import HostRules
from run_batch.io.media.image_download import fetch

# Downloads that run or wait to be read, per worker process.
FETCHES_AHEAD = 8


class UrlFetcher:
    """Downloads URLs in threads, in the order in which they will be read."""

    def __init__(self, rules: HostRules, max_bytes: int) -> None:
        self._rules = rules
        self._max_bytes = max_bytes
        self._uses: Counter[str] = Counter()
        self._waiting: deque[str] = deque()
        self._started: dict[str, Future[bytes]] = {}
        self._pool: ThreadPoolExecutor | None = None

    def announce(self, urls: Iterable[str]) -> None:
        """Start to download what will be read next; drop what was announced before and not read."""
        for future in self._started.values():
            future.cancel()
        self._started.clear()
        self._uses = Counter(urls)
        self._waiting = deque(self._uses)
        self._start_some()

    def read(self, url: str) -> bytes:
        """Return the content of `url`, waiting for its download; it need not have been announced.

        Raises:
            MediaError: see run_batch.io.media.image_download.fetch.
        """
        future = self._started.get(url) or self._start(url)
        try:
            return future.result()
        finally:
            self._uses[url] -= 1
            if self._uses[url] <= 0:
                self._started.pop(url, None)
            self._start_some()

    def _start_some(self) -> None:
        while self._waiting and len(self._started) < FETCHES_AHEAD:
            url = self._waiting.popleft()
            if url not in self._started and self._uses[url] > 0:
                self._start(url)

    def _start(self, url: str) -> Future[bytes]:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(max_workers=FETCHES_AHEAD, thread_name_prefix="fetch")
        self._started[url] = self._pool.submit(fetch, url, self._rules, self._max_bytes)
        return self._started[url]
