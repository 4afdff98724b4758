"""What a run says on standard error before its first row and at its end: a few lines, none of them with `--quiet`."""

import os
import shlex
import sys
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tqdm import tqdm

from run_batch.io.secrets import hide_secrets
from run_batch.jobs.job.config import JobConfig
from run_batch.jobs.job.content import versions
from run_batch.jobs.job.prepare import PreparedJob
from run_batch.jobs.machine.cores import usable_cores
from run_batch.jobs.machine.storage_watch import printing
from run_batch.jobs.results.shard_commits import Commit, CommittedShards
from run_batch.model.engine_phases import Phase

# More engine settings than these make a line that nobody reads.
_SHOWN_SETTINGS = 5
_LONGEST_VALUE = 40
# A shorter part of a start is not worth a word.
_LONG_PHASE_SECONDS = 1.0
_SECRET_SETTINGS = {"hf_token"}


def say(line: str) -> None:
    """Show a line on standard error, above the bar, from any thread."""
    with printing():
        tqdm.write(line, file=sys.stderr)
        sys.stderr.flush()


class RunMessages:
    """Tells how far a run is until its first row, and what it leaves."""

    def __init__(self, quiet: bool) -> None:
        """Prepare.

        Args:
            quiet: say nothing.
        """
        self._quiet = quiet
        self._is_first = True

    def _say(self, line: str) -> None:
        if not self._quiet:
            say(hide_secrets(line))

    def begin(self, config: JobConfig) -> None:
        """Say which program begins, before the input is looked at, which may take a while."""
        found = versions()
        paths = ", ".join(config.input_paths)
        self._say(f"run-batch: version {found['run-batch']}, vLLM {found['vLLM']}; planning the rows of {paths}")

    def work(self, job: PreparedJob, committed: CommittedShards, retried: int = 0, recovered: int = 0) -> None:
        """Say what there is to do, and that the model is being loaded for it.

        Args:
            committed: of the share.
            retried: failed rows that are generated again; 0 if rows are generated that are missing.
            recovered: rows of shards that are not committed, which earlier runs have finished.
        """
        config, rows, done = job.config, committed.rows, committed.rows_done + recovered
        what = f"{rows} rows in {len(job.shards)} shard{'' if len(job.shards) == 1 else 's'}"
        if job.share.count > 1:
            what = f"share {job.share.label} of {job.plan.num_rows} rows: {what}"
        if retried:
            what = f"{retried} of {what} have failed and are generated again"
        elif done >= rows:
            what += "; all are done already, those of other shares are not"
        elif done:
            what += f"; {done} are done already, {rows - done} are left"
        self._say(f"{what}; results in {job.store.folder}")
        workers = config.preprocess.workers or usable_cores()
        several = "es" if workers > 1 else ""
        begin, end = f"loading the model {config.model.path}", f" ..., {workers} worker process{several}"
        if settings := _settings(config.engine, _columns() - len(begin + end) - len(" ()"), least=_SHOWN_SETTINGS):
            self._say(f"{begin} ({settings}){end}")
            return
        self._say(f"{begin}{end}")
        if settings := _settings(config.engine, _columns() - len("engine: ")):
            self._say(f"engine: {settings}")

    def loaded(self, seconds: float, phases: Mapping[Phase, float], max_num_seqs: int | None = None) -> None:
        """Say that the model is loaded.

        Args:
            phases: what took how much of these seconds.
            max_num_seqs: rows that the engine runs at once, where that is known.
        """
        rows = f"; up to {max_num_seqs} rows run at once" if max_num_seqs is not None else ""
        parts = ", ".join(f"{what} {took:.1f} s" for what, took in phases.items() if took >= _LONG_PHASE_SECONDS)
        shown, short = f"model loaded in {seconds:.1f} s", f" ({parts})" if parts else ""
        self._say(f"{shown}{short if len(shown + short + rows) < _columns() else ''}{rows}")

    def first_row(self) -> None:
        """Say, once, how long the command has taken to its first row."""
        if self._is_first:
            self._is_first = False
            self._say(f"first row after {_seconds_of_process():.1f} s")

    def end(self, failed: Iterable[Commit], truncated: int, imageless: int, folder: Path) -> None:
        """Say what became of the rows, and where to look.

        Args:
            failed: the committed shards with rows that failed.
            truncated: rows that ended by length.
            imageless: rows of this run without an image or a video, in a job with either.
        """
        kinds: Counter[str] = Counter()
        for commit in failed:
            kinds.update(commit.errors)
        if imageless:
            told = "which have nothing in input.image_column or input.video_column"
            self._say(f"asked by their text alone: {imageless} rows of this run, {told}")
        if kinds:
            self._say("failed: " + ", ".join(f"{count} {kind}" for kind, count in kinds.most_common()))
        if truncated:  # the summary says how many
            self._say("rows ended by length: sampling.max_tokens limits them, or the context (engine.max_model_len)")
        self._say(f"to look at the results: run-batch report {shlex.quote(str(folder))}")


def _settings(engine: Mapping[str, Any], room: int, least: int = 1) -> str:
    """The engine settings that the job has: the first ones, as many as there is room for, in columns.

    Args:
        least: nothing where there is no room for so many.
    """
    settings = [f"{name} = {_value(value)}" for name, value in engine.items() if name not in _SECRET_SETTINGS]
    for count in range(min(len(settings), _SHOWN_SETTINGS), 0, -1):
        more = [f"{len(settings) - count} more"] if len(settings) > count else []
        text = ", ".join([*settings[:count], *more])
        if len(text) < room:
            return text if count >= min(least, len(settings)) else ""
    return ""


def _columns() -> int:
    """The width of the terminal; of a file, more than any line takes."""
    if not sys.stderr.isatty():
        return 1 << 16
    return os.get_terminal_size(sys.stderr.fileno()).columns or 80


def _value(value: Any) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + "…"


def _seconds_of_process() -> float:
    """Seconds since this process was started."""
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
