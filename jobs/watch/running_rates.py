"""What a job did over the time in which it finished rows, from the lines of `metrics.jsonl` of all its processes.

Time in which no process did, as while nobody ran it or a model loaded, is left out, and marked. The files are read line
by line, twice: what that takes of memory does not grow with them.
"""

import math
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import msgspec

from run_batch.jobs.job.shares import files_of_shares
from run_batch.jobs.watch.metrics import METRICS_FILE
from run_batch.jobs.watch.run_end import RUNS_FILE, Run, read_runs

# In the order in which a row passes them.
STAGES = ("input", "mapping", "engine", "output")
# What a process is called that has no share.
WHOLE_JOB_LABEL = "whole job"

# From how many seconds without a process on there is a break; and without a line, where it is not known which process
# has written it: between two lines of a process that runs there is a second, or a step of the engine.
_BREAK_SECONDS, _GAP_SECONDS = 1.0, 15.0
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
class ProcessRun:
    """One process that has worked on a job.

    Attributes:
        label: of its share; `whole job` where it had none.
        run: what it has noted of its begin and its end.
        seconds: that its lines of `metrics.jsonl` tell of.
        rows, prompt_tokens, generated_tokens: that it has finished.
        first, last: when its first line begins, and time of its last one.
    """

    label: str
    run: Run
    seconds: float = 0.0
    rows: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    first: float = math.inf
    last: float = 0.0

    @property
    def until(self) -> float:
        """When it ended; of one that left no word of that, when it was last heard of."""
        return max(self.run.began, self.run.ended if self.run.ended is not None else self.last)

    def add(self, line: _Line) -> None:
        """Count a line."""
        self.seconds += line.seconds
        self.rows += line.rows_finished
        self.prompt_tokens += line.prompt_tokens
        self.generated_tokens += line.generated_tokens
        self.first, self.last = min(self.first, line.time - line.seconds), max(self.last, line.time)


@dataclass(frozen=True, slots=True)
class RunningRates:
    """The curves of a job's rates.

    Attributes:
        seconds: in which at least one process finished rows.
        rates: rows per second in equal parts of that time; empty where nothing is known.
        gaps: where time is left out: seconds of running before it, and seconds left out.
        runs: when processes finished rows, from the first line of each to its last one: start and stop, in seconds
            since the epoch, ascending.
        stages: by the stage that a faster run would have needed: in how many seconds of each part of `rates`, of all
            processes together.
        prompt_tokens, generated_tokens: per second, in the same parts.
        processes: that have worked on the job, in the order in which they began.
    """

    seconds: float
    rates: Sequence[float]
    gaps: Sequence[tuple[float, float]]
    runs: Sequence[tuple[float, float]] = ()
    stages: Mapping[str, Sequence[float]] = field(default_factory=dict)
    prompt_tokens: Sequence[float] = ()
    generated_tokens: Sequence[float] = ()
    processes: Sequence[ProcessRun] = ()


class _Curves:
    """Adds lines up, in equal parts of the time in which processes finished rows."""

    def __init__(self, runs: Sequence[tuple[float, float]]) -> None:
        self._runs = runs
        self._begins = [0.0]
        for start, stop in runs:
            self._begins.append(self._begins[-1] + stop - start)
        self.seconds = self._begins.pop()
        points = min(max(int(self.seconds), 1), _POINTS)
        self._width = (self.seconds or 1.0) / points
        self._rows, self._prompt_tokens, self._generated_tokens = ([0.0] * points for _ in range(3))
        self._stages: dict[str, list[float]] = {}

    def add(self, line: _Line) -> None:
        """Add a line; not one that has come since the runs were read, and is in none of them."""
        start = line.time - line.seconds
        place = bisect_right(self._runs, (start, math.inf)) - 1
        if place < 0 or start > self._runs[place][1]:
            return
        at = self._begins[place] + start - self._runs[place][0]
        stage = self._stages.setdefault(line.bottleneck, [0.0] * len(self._rows)) if line.bottleneck in STAGES else None
        for part, share in self._spread(at, at + line.seconds):
            self._rows[part] += share * line.rows_finished
            self._prompt_tokens[part] += share * line.prompt_tokens
            self._generated_tokens[part] += share * line.generated_tokens
            if stage is not None:
                stage[part] += share * line.seconds

    def _spread(self, start: float, stop: float) -> Iterator[tuple[int, float]]:
        """The parts that some time lies in, and how much of it lies in each."""
        last = len(self._rows) - 1
        for part in range(min(int(start / self._width), last), min(int(stop / self._width), last) + 1):
            shared = min(stop, (part + 1) * self._width) - max(start, part * self._width)
            yield part, max(shared, 0.0) / (stop - start)

    def rates(self, processes: Sequence[ProcessRun]) -> RunningRates:
        """The curves of all lines."""
        breaks = zip(self._begins[1:], pairwise(self._runs), strict=True)
        gaps = [(at, later[0] - run[1]) for at, (run, later) in breaks]
        every = (self._rows, self._prompt_tokens, self._generated_tokens)
        rows, prompt, generated = ([amount / self._width for amount in parts] for parts in every)
        return RunningRates(self.seconds, rows, gaps, self._runs, self._stages, prompt, generated, processes)


def running_rates(run_folder: Path) -> RunningRates:
    """What all processes of a job have done, together.

    Raises:
        OSError: a file cannot be read.
    """
    found = {label: _noted(label, folder) for label, folder in _folders(run_folder)}
    for label, line in _lines(run_folder):
        _process_of(label, line, found.setdefault(label, [])).add(line)
    processes = sorted((process for of_share in found.values() for process in of_share), key=lambda one: one.run.began)
    curves = _Curves(joined((process.first, process.last) for process in processes if process.seconds))
    if not curves.seconds:
        return RunningRates(0.0, (), (), processes=processes)
    for _, line in _lines(run_folder):
        curves.add(line)
    return curves.rates(processes)


def _noted(label: str, folder: Path) -> list[ProcessRun]:
    """The processes of a share that have noted that they began, in that order."""
    return [ProcessRun(label, run) for run in sorted(read_runs(folder / RUNS_FILE), key=lambda run: run.began)]


def _process_of(label: str, line: _Line, processes: list[ProcessRun]) -> ProcessRun:
    """The process that has written a line; where none that began before is known, one without a host."""
    # Of two processes of a share, one begins after the other has ended.
    place, start = bisect_right(processes, line.time, key=lambda process: process.run.began), line.time - line.seconds
    before = processes[place - 1] if place else None
    if before is None or (not before.run.host and start > before.last + _GAP_SECONDS):
        before = ProcessRun(label, Run("", start))
        processes.insert(place, before)
    return before


def joined(times: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Times that overlap, or nearly follow one another, as one: start and stop, ascending."""
    found: list[tuple[float, float]] = []
    for start, stop in sorted(times):
        if found and start <= found[-1][1] + _BREAK_SECONDS:
            found[-1] = (found[-1][0], max(found[-1][1], stop))
        else:
            found.append((start, stop))
    return found


def _folders(run_folder: Path) -> Iterator[tuple[str, Path]]:
    """The folder of each share that has files, with its label; the first one is that of the whole job."""
    yield WHOLE_JOB_LABEL, run_folder
    files = (file for name in (METRICS_FILE, RUNS_FILE) for file in files_of_shares(run_folder, name))
    for folder in sorted({file.parent for file in files}):
        yield folder.name, folder


def _lines(run_folder: Path) -> Iterator[tuple[str, _Line]]:
    """The lines of all processes with the label of their share, those of one file after those of another; not what a
    crash has torn.
    """
    for label, folder in _folders(run_folder):
        try:
            with open(folder / METRICS_FILE, "rb") as lines:
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
    counts = (line.rows_finished, line.prompt_tokens, line.generated_tokens)
    is_sane = math.isfinite(line.time) and 0 < line.seconds <= _LONGEST_SECONDS and min(counts) >= 0
    return line if is_sane else None
