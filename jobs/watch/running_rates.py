"""What a job did over the time that it has run, from the lines of `metrics.jsonl` of all its processes.

Time in which no process ran is left out, and marked. The files are read line by line, twice: what that takes of memory
does not grow with them.
"""

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from run_batch.jobs.job.shares import files_of_shares
from run_batch.jobs.watch.metrics import METRICS_FILE

# In the order in which a row passes them.
STAGES = ("input", "mapping", "engine", "output")

# Between two lines of a process that runs there is a second, or a step of the engine.
_GAP_SECONDS = 15.0
# Most points of a curve, and longest interval that a line is believed to tell of.
_POINTS, _LONGEST_SECONDS = 180, 3600.0


class _Line(msgspec.Struct):
    """Of a line of `metrics.jsonl`, what is read here; see MetricsRecord."""

    time: float
    seconds: float
    rows_finished: int
    prompt_tokens: int = 0
    generated_tokens: int = 0
    bottleneck: str = ""


_decoder = msgspec.json.Decoder(_Line)


@dataclass(slots=True)
class Totals:
    """What one process, or all that had its share one after the other, has done."""

    seconds: float = 0.0
    rows: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0

    def add(self, line: _Line) -> None:
        """Count a line."""
        self.seconds += line.seconds
        self.rows += line.rows_finished
        self.prompt_tokens += line.prompt_tokens
        self.generated_tokens += line.generated_tokens


@dataclass(frozen=True, slots=True)
class RunningRates:
    """The curve of a job's rate.

    Attributes:
        seconds: that at least one process ran.
        rates: rows per second in equal parts of that time; empty where nothing is known.
        gaps: where time is left out: seconds of running before it, and seconds left out.
        runs: when a process ran: start and stop, in seconds since the epoch, ascending.
        stages: by the stage that a faster run would have needed: in how many seconds of each part of `rates`, of all
            processes together.
        totals: by share, `all` for a job that runs in none.
    """

    seconds: float
    rates: Sequence[float]
    gaps: Sequence[tuple[float, float]]
    runs: Sequence[tuple[float, float]] = ()
    stages: Mapping[str, Sequence[float]] = field(default_factory=dict)
    totals: Mapping[str, Totals] = field(default_factory=dict)


def running_rates(run_folder: Path) -> RunningRates:
    """What all processes of a job have done, together.

    Raises:
        OSError: a file cannot be read.
    """
    runs = _runs(run_folder)
    begins = [0.0]
    for start, stop in runs:
        begins.append(begins[-1] + stop - start)
    seconds = begins.pop()
    points = min(max(int(seconds), 1), _POINTS)
    if not runs:
        return RunningRates(0.0, (), ())
    rows, width = [0.0] * points, seconds / points
    stages: dict[str, list[float]] = {}
    totals: dict[str, Totals] = defaultdict(Totals)
    for label, line in _lines(run_folder):
        start = line.time - line.seconds
        # A line that has come since the first look is in no run.
        place = bisect_right(runs, (start, math.inf)) - 1
        if place >= 0 and start <= runs[place][1]:
            at = begins[place] + start - runs[place][0]
            _spread(rows, width, at, line, line.rows_finished)
            totals[label].add(line)
            if line.bottleneck in STAGES:
                _spread(stages.setdefault(line.bottleneck, [0.0] * points), width, at, line, line.seconds)
    gaps = [(at, later[0] - run[1]) for at, run, later in zip(begins[1:], runs, runs[1:], strict=False)]
    return RunningRates(seconds, [count / width for count in rows], gaps, runs, stages, totals)


def _spread(parts: list[float], width: float, start: float, line: _Line, amount: float) -> None:
    """Add an amount to the parts of time that the seconds of a line, from `start` on, lie in."""
    stop = start + line.seconds
    for part in range(min(int(start / width), len(parts) - 1), min(int(stop / width), len(parts) - 1) + 1):
        shared = min(stop, (part + 1) * width) - max(start, part * width)
        parts[part] += amount * max(shared, 0.0) / line.seconds


def _runs(run_folder: Path) -> list[tuple[float, float]]:
    """The times in which a process ran, without short breaks: start and stop, ascending."""
    found: list[tuple[float, float]] = []
    for _, line in _lines(run_folder):
        start = line.time - line.seconds
        if found and found[-1][0] <= start <= found[-1][1] + _GAP_SECONDS:
            found[-1] = (found[-1][0], max(found[-1][1], line.time))
        else:
            found.append((start, line.time))
    return _joined(found)


def _joined(runs: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    joined: list[tuple[float, float]] = []
    for start, stop in sorted(runs):
        if joined and start <= joined[-1][1] + _GAP_SECONDS:
            joined[-1] = (joined[-1][0], max(joined[-1][1], stop))
        else:
            joined.append((start, stop))
    return joined


def _lines(run_folder: Path) -> Iterator[tuple[str, _Line]]:
    """The lines of all processes with the label of their share, those of one file after those of another; not what a
    crash has torn.
    """
    for file in [run_folder / METRICS_FILE, *sorted(files_of_shares(run_folder, METRICS_FILE))]:
        label = "all" if file.parent == run_folder else file.parent.name
        try:
            with open(file, "rb") as lines:
                for text in lines:
                    line = _decoded(text)
                    if line is not None:
                        yield label, line
        except FileNotFoundError:
            continue


def _decoded(text: bytes) -> _Line | None:
    try:
        line = _decoder.decode(text)
    except msgspec.MsgspecError:
        return None
    is_sane = math.isfinite(line.time) and 0 < line.seconds <= _LONGEST_SECONDS and line.rows_finished >= 0
    return line if is_sane else None
