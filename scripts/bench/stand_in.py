"""A simulated engine that behaves like a device: a fixed time for each row, a fixed number of rows at once, no CPU."""

import heapq
import time
from collections import deque

from run_batch.jobs.engine.vllm_engine import Generation
from run_batch.jobs.job.rows import MappedRow


class StandInEngine:
    """Runs each row for `seconds_per_row` in one of `max_num_seqs` slots, once it is added and a slot is free.

    Attributes:
        busy_seconds: sum over all slots.
        first, last: start of the first row and end of the last one (time.monotonic).
    """

    def __init__(self, max_num_seqs: int, seconds_per_row: float, start_seconds: float = 0.0) -> None:
        time.sleep(start_seconds)
        self.max_num_seqs = max_num_seqs
        self._seconds = seconds_per_row
        self._free = [0.0] * max_num_seqs
        self._seated: deque[tuple[float, int]] = deque()
        self.busy_seconds = 0.0
        self.first = self.last = 0.0

    @property
    def unfinished(self) -> int:
        return len(self._seated)

    @property
    def running(self) -> int:
        return min(self.unfinished, self.max_num_seqs)

    def add(self, mapped: MappedRow) -> None:
        now = time.monotonic()
        self.first = self.first or now
        start = max(now, heapq.heappop(self._free))
        heapq.heappush(self._free, start + self._seconds)
        self._seated.append((start + self._seconds, mapped.row))
        self.busy_seconds += self._seconds
        self.last = start + self._seconds

    def step(self) -> list[Generation]:
        time.sleep(max(0.0, self._seated[0][0] - time.monotonic()))
        done = []
        now = time.monotonic()
        while self._seated and self._seated[0][0] <= now:
            done.append(Generation(self._seated.popleft()[1], ("text",), "stop", 10, 1))
        return done

    def close(self) -> None:
        return

    @property
    def idle_share(self) -> float:
        """Fraction of the slots' time, from the first row to the last, in which they were empty."""
        return 1 - self.busy_seconds / (len(self._free) * (self.last - self.first))
