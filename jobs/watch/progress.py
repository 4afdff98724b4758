"""The progress of a run: a bar on a terminal, plain lines elsewhere, and `progress.json` for other processes."""

import contextlib
import json
import math
import os
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
from run_batch.io.secrets import hide_secrets
from run_batch.jobs.machine.storage_watch import printing
from run_batch.jobs.results.shard_writer import OpenRows
from run_batch.jobs.watch.progress_bar import Counts, bar_format, duration, plain_line
from run_batch.jobs.watch.run_messages import RunMessages

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
        waiting_for: what keeps it from going on, such as storage that has stalled, or copies of shards; else empty.
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
        imageless_rows: rows without an image or a video that it has given to the engine, in a job with either.
    """

    writer: str
    holder: dict[str, Any]
    running: bool
    waiting_for: str
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
    imageless_rows: int = 0


class ProgressLine:
    """The progress of a run as people see it: a bar on a terminal, plain lines elsewhere, one line at its end.

    Attributes:
        total, done, failed, truncated: rows of ProgressRecord's rows_total, rows_done, rows_failed, rows_truncated.
        generated_rows, generated_tokens, imageless_rows: of this run.
        bottleneck: the slowest stage; empty while it is not known.
        waiting_for: see ProgressRecord.
        messages: tells of the first row; set by who begins the run.
    """

    def __init__(self, total: int, done: int, failed: int, truncated: int, quiet: bool) -> None:
        self.total, self.done, self.failed, self.truncated = total, done, failed, truncated
        self.generated_rows = self.generated_tokens = self.imageless_rows = 0
        self.bottleneck = self.waiting_for = ""
        self.messages = RunMessages(quiet=True)
        self._started, self._ended = time.monotonic(), math.inf
        self._samples: deque[tuple[float, int, int]] = deque([(self._started, 0, 0)])
        self._shown = self._sampled = self._started
        self._lines = not quiet and not sys.stderr.isatty()
        # What it says is set each time that it is shown: tqdm would count rows of earlier runs as speed.
        self._bar = None if quiet or self._lines else tqdm(total=total, bar_format=" ", dynamic_ncols=True)

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
            with printing():
                self._fill(self._bar)
                self._bar.refresh()
        if self._lines and now - self._shown >= _LINE_SECONDS:
            self._shown = now
            with printing():
                print(plain_line(self._counts_now()), file=sys.stderr, flush=True)

    def rates(self) -> tuple[float, float]:
        """Rows and tokens per second."""
        then, rows, tokens = self._samples[0]
        seconds = max(time.monotonic() - then, 1e-3)
        return (self.generated_rows - rows) / seconds, (self.generated_tokens - tokens) / seconds

    def _counts_now(self) -> Counts:
        return Counts(self.done, self.total, self.failed, *self.rates(), self.bottleneck)

    def _fill(self, bar: Any) -> None:
        bar.total, bar.n = self.total, self.done
        # A terminal that does not know its width says 0.
        bar.bar_format = bar_format(self._counts_now(), os.get_terminal_size(sys.stderr.fileno()).columns or 80)

    def close(self) -> None:
        """End the bar, and the time of the run: what ends after its rows, as its engine, takes nothing of its speed."""
        self._ended = min(self._ended, time.monotonic())
        if self._bar is not None:
            with printing(), contextlib.suppress(OSError):  # the terminal is gone
                self._fill(self._bar)
                self._bar.close()

    def summary(self, folder: Path) -> str:
        """One line on the whole run."""
        seconds = min(self._ended, time.monotonic()) - self._started
        rate = self.generated_rows / seconds if seconds else 0.0
        return (
            f"{self.done} of {self.total} rows done, {self.failed} failed; this run: {self.generated_rows} rows and "
            f"{self.generated_tokens} tokens in {duration(seconds)} ({rate:.1f} rows/s); "
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
        if self.generated_rows == 1:
            self.messages.first_row()

    def tick(self, bottleneck: str) -> None:
        """Show what has changed and write `progress.json`, at most once a second."""
        self.bottleneck = bottleneck
        if self.is_due():
            self.show()
            self.write()

    def wait_for(self, what: str) -> None:
        """Tell that all rows are finished, and that the run waits for something else before it ends."""
        self.waiting_for = hide_secrets(what)
        self.write(running=False)

    def write(self, running: bool = True) -> None:
        """Write `progress.json`."""
        record = ProgressRecord(
            writer=self._writer,
            holder=self._holder,
            running=running,
            waiting_for=self.waiting_for,
            rows_total=self.total,
            rows_done=self.done,
            rows_failed=self.failed,
            rows_truncated=self.truncated,
            open_shards=[(shard, *astuple(had)) for shard, had in self.open_rows.items()],
            rows_per_second=self.rates()[0],
            bottleneck=self.bottleneck,
            updated=time.time(),
            generated_rows=self.generated_rows,
            generated_tokens=self.generated_tokens,
            imageless_rows=self.imageless_rows,
        )
        # Progress is for people: a full disk fails the run where results are written, not here.
        with contextlib.suppress(OSError):
            replace_file(self._file, json.dumps(asdict(record)).encode(), durable=False)


def read_progress(file: Path) -> ProgressRecord | None:
    """The last progress that a run wrote, or None."""
    try:
        return ProgressRecord(**json.loads(file.read_text()))
    except (OSError, ValueError, TypeError):
        return None
