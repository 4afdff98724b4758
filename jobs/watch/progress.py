"""The progress of a run: a bar on a terminal, plain lines elsewhere, and `progress.json` for other processes."""

import contextlib
import json
import sys
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from run_batch.io.coordination.process_identity import this_process
from run_batch.io.files import replace_file
from run_batch.jobs.machine.storage_watch import printing
from run_batch.jobs.results.shard_writer import OpenRows

PROGRESS_FILE = "progress.json"
_LINE_SECONDS = 10.0
# The bar, and the file.
_SECONDS = 1.0
# Rates are of the last half minute: they show what the machine does now.
_RATE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class ProgressRecord:
    """A run's progress as other processes see it.

    Attributes:
        writer: the name of its journal files.
        holder: its process, as in its lease.
        running: False once the run has ended in good order.
        rows_total: rows of its share, and of the shards that it has stolen from others.
        rows_done: finished rows among them, also of earlier runs and of shards that are not committed yet.
        rows_failed: those of them with an error.
        rows_truncated: those of them whose generation ended by `length`.
        open_shards: shard, finished rows, those of them that failed, those that ended by `length`, and how often the
            shard has been committed, for each shard with rows that are not committed yet.
        rows_per_second: of the last half minute.
        bottleneck: the slowest stage: `engine`, `mapping`, `input` or `output`; empty while it is not known.
        updated: seconds since the epoch by the clock of its host, for people to read.
        generated_rows, generated_tokens: by this process.
    """

    writer: str
    holder: dict[str, Any]
    running: bool
    rows_total: int
    rows_done: int
    rows_failed: int
    rows_truncated: int
    open_shards: list[tuple[int, int, int, int, int]]
    rows_per_second: float
    bottleneck: str
    updated: float
    generated_rows: int
    generated_tokens: int


class ProgressLine:
    """The progress of a run as people see it: a bar on a terminal, plain lines elsewhere, one line at its end.

    Attributes:
        total, done, failed, truncated: rows of ProgressRecord's rows_total, rows_done, rows_failed, rows_truncated.
        generated_rows, generated_tokens: of this run.
    """

    def __init__(self, total: int, done: int, failed: int, truncated: int, quiet: bool) -> None:
        self.total, self.done, self.failed, self.truncated = total, done, failed, truncated
        self.generated_rows = self.generated_tokens = 0
        self._started = time.monotonic()
        self._samples: deque[tuple[float, int, int]] = deque([(self._started, 0, 0)])
        self._shown = self._sampled = self._started
        self._lines = not quiet and not sys.stderr.isatty()
        self._bar = None if quiet or self._lines else tqdm(total=total, initial=done, unit="row", dynamic_ncols=True)

    def is_due(self) -> bool:
        """Whether a second has passed since `show` was called."""
        return time.monotonic() - self._sampled >= _SECONDS

    def show(self) -> None:
        """Show what has changed."""
        now = self._sampled = time.monotonic()
        self._samples.append((now, self.generated_rows, self.generated_tokens))
        while self._samples[0][0] < now - _RATE_SECONDS:
            self._samples.popleft()
        if self._bar is not None:
            self._bar.total, self._bar.n = self.total, self.done
            with printing():
                self._bar.set_postfix_str(f"{self.rates()[1]:.0f} tokens/s, {self.failed} failed")
        if self._lines and now - self._shown >= _LINE_SECONDS:
            self._shown = now
            with printing():
                print(self._line(), file=sys.stderr, flush=True)

    def rates(self) -> tuple[float, float]:
        """Rows and tokens per second."""
        then, rows, tokens = self._samples[0]
        seconds = max(time.monotonic() - then, 1e-3)
        return (self.generated_rows - rows) / seconds, (self.generated_tokens - tokens) / seconds

    def _line(self) -> str:
        rows, tokens = self.rates()
        left = f"{_duration((self.total - self.done) / rows)} left" if rows > 0 else "time left unknown"
        return (
            f"{self.done} of {self.total} rows, {rows:.1f} rows/s, {tokens:.0f} tokens/s, {self.failed} failed, {left}"
        )

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.n = self.done
            self._bar.close()

    def summary(self, folder: Path) -> str:
        """One line on the whole run."""
        seconds = time.monotonic() - self._started
        rate = self.generated_rows / seconds if seconds else 0.0
        return (
            f"{self.done} of {self.total} rows done, {self.failed} failed; this run: {self.generated_rows} rows and "
            f"{self.generated_tokens} tokens in {_duration(seconds)} ({rate:.1f} rows/s); "
            f"{self.truncated} rows ended by length; results in {folder}"
        )


class Progress(ProgressLine):
    """Counts the finished rows of this process, shows them, and tells other processes of them.

    Attributes:
        open_rows: by shard, ProgressRecord's open_shards; set by the owner before each `tick`.
    """

    def __init__(
        self, total: int, done: int, failed: int, truncated: int, file: Path, writer: str, quiet: bool
    ) -> None:
        super().__init__(total, done, failed, truncated, quiet)
        self.open_rows: Mapping[int, OpenRows] = {}
        self._bottleneck = ""
        self._file = file
        self._writer, self._holder = writer, asdict(this_process())

    def add_recovered(self, failed: bool, truncated: bool) -> None:
        """Count one row that an earlier run had finished."""
        self.done += 1
        self.failed += failed
        self.truncated += truncated

    def add(self, tokens: int, failed: bool, truncated: bool) -> None:
        """Count one row that this run has finished."""
        self.add_recovered(failed, truncated)
        self.generated_rows += 1
        self.generated_tokens += tokens

    def tick(self, bottleneck: str) -> None:
        """Show what has changed and write `progress.json`, at most once a second."""
        self._bottleneck = bottleneck
        if self.is_due():
            self.show()
            self.write()

    def write(self, running: bool = True) -> None:
        """Write `progress.json`."""
        record = ProgressRecord(
            writer=self._writer,
            holder=self._holder,
            running=running,
            rows_total=self.total,
            rows_done=self.done,
            rows_failed=self.failed,
            rows_truncated=self.truncated,
            open_shards=[(shard, *astuple(had)) for shard, had in self.open_rows.items()],
            rows_per_second=self.rates()[0],
            bottleneck=self._bottleneck,
            updated=time.time(),
            generated_rows=self.generated_rows,
            generated_tokens=self.generated_tokens,
        )
        # Progress is for people: a full disk fails the run where results are written, not here.
        with contextlib.suppress(OSError):
            replace_file(self._file, json.dumps(asdict(record)).encode(), durable=False)


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


def read_progress(file: Path) -> ProgressRecord | None:
    """The last progress that a run wrote, or None."""
    try:
        return ProgressRecord(**json.loads(file.read_text()))
    except (OSError, ValueError, TypeError):
        return None
