"""What every stage of a run did, second by second, in `.run_batch/metrics.jsonl`, and which stage is the bottleneck.

One line of JSON for each second of a run; a resumed run appends to the file. Counts and seconds in a line are those of
its interval, not sums; the first line also counts what was mapped while the engine loaded. The last line of a run that
was not killed tells of the part of a second that was left.
"""

import contextlib
import json
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

from run_batch.jobs.job.pool_counts import PoolCounts

METRICS_FILE = "metrics.jsonl"
_INTERVAL_SECONDS = 1.0
# From this share of an interval on without a row, the engine counts as idle.
_IDLE = 0.1
_SHARDS_BEHIND = 2


@dataclass(frozen=True, slots=True)
class MetricsRecord:
    """One line of `metrics.jsonl`.

    Attributes:
        time: seconds since the epoch, at the end of the interval.
        seconds: length of the interval.
        rows_mapped, rows_finished, prompt_tokens, generated_tokens: in the interval.
        rows_queued: mapped rows that wait for a place in the engine, at the end of the interval.
        rows_waiting, rows_running: rows in the engine without and with a seat (of `engine.max_num_seqs`).
        bytes_in_flight: of the tensors of queued rows.
        engine_idle_share: share of the interval in which the engine had no row.
        mapping_share: share of the interval in which a worker had rows to map, on average over the workers; at most 1.
        input_seconds, step_seconds, feed_seconds, output_seconds: reading the input, stepping the engine, adding rows
            to it, writing shards.
        shards_queued: whole shards that wait to be written.
        bottleneck: the stage that a faster run would need: `engine`, `mapping`, `input` or `output`.
    """

    time: float
    seconds: float
    rows_mapped: int
    rows_finished: int
    prompt_tokens: int
    generated_tokens: int
    rows_queued: int
    rows_waiting: int
    rows_running: int
    bytes_in_flight: int
    engine_idle_share: float
    mapping_share: float
    input_seconds: float
    step_seconds: float
    feed_seconds: float
    output_seconds: float
    shards_queued: int
    bottleneck: str


class Metrics:
    """Collects what happens in an interval and writes its line at its end."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._started = self._lapped = time.monotonic()
        self._stages: defaultdict[str, float] = defaultdict(float)
        self._rows = self._prompt_tokens = self._generated_tokens = 0
        self._pool = PoolCounts(0, 0.0, 0.0, 0, 0, 0)
        self._output_seconds = 0.0
        self.bottleneck = ""

    def lap(self, stage: str) -> None:
        """Count the time since the last lap as spent on `stage`: `idle`, `feed` or `step`."""
        now = time.monotonic()
        self._stages[stage] += now - self._lapped
        self._lapped = now

    def add(self, prompt_tokens: int, generated_tokens: int) -> None:
        """Count one finished row."""
        self._rows += 1
        self._prompt_tokens += prompt_tokens
        self._generated_tokens += generated_tokens

    def is_due(self) -> bool:
        """Whether an interval has passed."""
        return time.monotonic() - self._started >= _INTERVAL_SECONDS

    def write(
        self,
        pool: PoolCounts,
        rows_waiting: int,
        rows_running: int,
        output_seconds: float,
        shards_queued: int,
        is_last: bool = False,
    ) -> None:
        """End the interval and write its line.

        Args:
            output_seconds: spent on writing shards since the run began.
            is_last: nothing was left to do in it: what held the run up is told as before.
        """
        now = time.monotonic()
        seconds = max(now - self._started, 1e-9)
        mapping_share = min(1.0, (pool.mapping_seconds - self._pool.mapping_seconds) / seconds / max(1, pool.workers))
        idle_share = self._stages["idle"] / seconds
        input_seconds = pool.input_seconds - self._pool.input_seconds
        is_starved = idle_share >= _IDLE or (not pool.rows_waiting and not rows_waiting)
        if not (is_last and self.bottleneck):
            self.bottleneck = _bottleneck(shards_queued, is_starved, mapping_share, input_seconds / seconds)
        record = MetricsRecord(
            time=round(time.time(), 3),
            seconds=max(round(seconds, 3), 0.001),
            rows_mapped=pool.rows_mapped - self._pool.rows_mapped,
            rows_finished=self._rows,
            prompt_tokens=self._prompt_tokens,
            generated_tokens=self._generated_tokens,
            rows_queued=pool.rows_waiting,
            rows_waiting=rows_waiting,
            rows_running=rows_running,
            bytes_in_flight=pool.bytes_waiting,
            engine_idle_share=round(idle_share, 4),
            mapping_share=round(mapping_share, 4),
            input_seconds=round(input_seconds, 4),
            step_seconds=round(self._stages["step"], 4),
            feed_seconds=round(self._stages["feed"], 4),
            output_seconds=round(output_seconds - self._output_seconds, 4),
            shards_queued=shards_queued,
            bottleneck=self.bottleneck,
        )
        # Metrics are for people: a full disk fails the run where results are written, not here.
        with contextlib.suppress(OSError), open(self._file, "a") as file:
            file.write(json.dumps(asdict(record)) + "\n")
        self._started, self._pool, self._output_seconds = now, pool, output_seconds
        self._stages.clear()
        self._rows = self._prompt_tokens = self._generated_tokens = 0


def _bottleneck(shards_queued: int, is_starved: bool, mapping_share: float, input_share: float) -> str:
    if shards_queued > _SHARDS_BEHIND:
        return "output"
    if not is_starved:
        return "engine"
    # At the end of the input a single worker may be the one that the engine waits for.
    return "input" if input_share >= mapping_share else "mapping"
