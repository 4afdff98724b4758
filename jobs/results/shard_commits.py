"""What is committed, and how many rows of it failed: counted without opening every shard.

Each process appends a line for each shard that it commits to `commits.jsonl` in its own folder. The line comes before
the shard, so a shard that is there has one, except after a power cut. A shard that takes the place of an earlier
attempt has a second line, after it: where that is missing, nobody can tell which attempt is there, and the counts are
read from the shard's own footer.
"""

import contextlib
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

from run_batch.io.files import read_file
from run_batch.io.outputs.shards import ShardStore
from run_batch.io.transient import retry
from run_batch.jobs.job.plan import Plan
from run_batch.jobs.job.rows import RowFailure, RowResult, is_truncated
from run_batch.jobs.job.shares import files_of_shares

_COMMITS_FILE = "commits.jsonl"
# The footer's key for the Commit of its shard.
_FOOTER_KEY = "run_batch.commit"
_READERS = 16
# Clocks of two hosts may differ by this much: of two lines in two files, the later one is known only beyond it.
_CLOCK_SECONDS = 300.0


class Commit(msgspec.Struct, frozen=True):
    """The counts of one committed shard.

    Attributes:
        attempt: how often it had been committed before.
        rows, prompt_tokens, generated_tokens: in it.
        errors: how many of its rows failed, by kind of error.
        truncated: rows whose generation ended by `length`.
        matching, mismatching: rows whose text is, or is not, that of `errors.expected_column`.
        time: seconds since the epoch.
        is_there: False in the line that comes before the shard takes the place of an earlier attempt.
    """

    shard: int
    attempt: int
    rows: int
    prompt_tokens: int
    generated_tokens: int
    errors: dict[str, int] = {}
    truncated: int = 0
    matching: int = 0
    mismatching: int = 0
    time: float = 0.0
    is_there: bool = True

    @property
    def failed(self) -> int:
        """Rows with an error."""
        return sum(self.errors.values())


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Commit)


def count_results(
    shard: int, attempt: int, results: Iterable[RowResult], matches: Sequence[bool | None] | None = None
) -> Commit:
    """The counts of a shard that holds these results.

    Args:
        matches: of each row, whether its text is the expected one; None where none is expected.
    """
    errors: Counter[str] = Counter()
    rows = prompt_tokens = generated_tokens = truncated = 0
    for result in results:
        rows += 1
        if isinstance(result, RowFailure):
            errors[result.kind] += 1
        else:
            prompt_tokens += result.prompt_tokens
            generated_tokens += result.generated_tokens
            truncated += is_truncated(result)
    matches = matches or ()
    return Commit(
        shard=shard,
        attempt=attempt,
        rows=rows,
        prompt_tokens=prompt_tokens,
        generated_tokens=generated_tokens,
        errors=dict(errors),
        truncated=truncated,
        matching=matches.count(True),
        mismatching=matches.count(False),
        time=time.time(),
    )


def errors_by_kind(commits: Iterable[Commit]) -> Counter[str]:
    """How many rows failed, by kind of error."""
    counts: Counter[str] = Counter()
    for commit in commits:
        counts.update(commit.errors)
    return counts


def footer_of(commit: Commit) -> dict[str, str]:
    """What a shard's own footer says of its commit."""
    return {_FOOTER_KEY: _encoder.encode(commit).decode()}


def record_commit(store: ShardStore, commit: Commit) -> None:
    """Append a line to the process's own `commits.jsonl`.

    Raises:
        OSError: it cannot be written.
    """
    with open(store.own_folder / _COMMITS_FILE, "ab") as file:
        file.write(_encoder.encode(commit) + b"\n")


def read_commit(store: ShardStore, shard: int) -> Commit:
    """The counts of one committed shard, from its footer.

    Raises:
        ShardError: the shard cannot be read.
    """
    return _decoder.decode(store.metadata(shard)[_FOOTER_KEY])


def read_commits(store: ShardStore, plan: Plan, shards: Iterable[int]) -> dict[int, Commit]:
    """The counts of committed shards; opens as many files as there are shards, at most.

    Raises:
        ShardError: a shard cannot be read.
        OSError: the folder cannot be read.
    """
    wanted = set(shards)
    if not wanted:
        return {}
    files = [file for file in _commit_files(store) if retry(file.exists)]
    latest = _latest(files) if len(files) <= len(wanted) else {}
    # What decides whether rows are missing is read from the shard.
    found = {shard: latest[shard] for shard in wanted.difference(plan.cut) if shard in latest}
    others = wanted - found.keys()
    with ThreadPoolExecutor(max_workers=_READERS) as pool:
        return found | dict(zip(others, pool.map(lambda shard: read_commit(store, shard), others), strict=True))


def complete_shards(store: ShardStore, plan: Plan) -> set[int]:
    """The shards of a plan that are committed with all rows that they have in it.

    Raises:
        ShardError: a shard cannot be read.
        OSError: the folder cannot be read.
    """
    there = {shard for shard in store.committed() if shard < plan.num_shards}
    return there - {shard for shard in there.intersection(plan.cut) if _is_short(store, plan, shard)}


def _is_short(store: ShardStore, plan: Plan, shard: int) -> bool:
    return store.num_rows(shard) < len(plan.rows(shard))


def _commit_files(store: ShardStore) -> list[Path]:
    """The files of all processes that have ever committed a shard of the job."""
    folder = store.run_folder
    return [folder / _COMMITS_FILE, *files_of_shares(folder, _COMMITS_FILE)]


def _latest(files: Iterable[Path]) -> dict[int, Commit]:
    """The latest commit of each shard, without the shards whose lines are ambiguous."""
    latest: dict[int, Commit] = {}
    doubtful: set[int] = set()
    for file in files:
        for shard, commit in _last_lines(file).items():
            before = latest.get(shard)
            if before is not None and abs(before.time - commit.time) < _CLOCK_SECONDS:
                doubtful.add(shard)
            if before is None or before.time <= commit.time:
                latest[shard] = commit
    return {shard: commit for shard, commit in latest.items() if commit.is_there and shard not in doubtful}


class NewCommits:
    """The lines of one process's `commits.jsonl`, as they are appended."""

    def __init__(self, folder: Path) -> None:
        """Start at the end of the file that is there, if any.

        Args:
            folder: the process's own.
        """
        self._file = folder / _COMMITS_FILE
        self._read = self._file.stat().st_size if self._file.exists() else 0

    def take(self) -> list[Commit]:
        """The lines since the last call that say of a shard that it is there, or is about to be."""
        with contextlib.suppress(FileNotFoundError), open(self._file, "rb") as file:
            file.seek(self._read)
            content = file.read()
            whole = content[: content.rfind(b"\n") + 1]
            self._read += len(whole)
            return [commit for commit in _decode_lines(whole) if commit.is_there]
        return []


def _decode_lines(content: bytes) -> Iterator[Commit]:
    for line in content.splitlines():
        with contextlib.suppress(msgspec.MsgspecError):  # torn by a crash
            yield _decoder.decode(line)


def _last_lines(file: Path) -> dict[int, Commit]:
    """The last line of each shard in a file of one process: it appends, so the order of lines is that of commits."""
    return {commit.shard: commit for commit in _decode_lines(read_file(file))}


class CommittedShards:
    """The committed shards among some consecutive ones, with their counts: read from the folder, then counted on.

    Attributes:
        plan: of the whole job.
        rows: rows of all of these shards, committed or not.
        rows_done: rows in committed ones.
        rows_failed: those of them with an error.
        rows_truncated: those of them whose generation ended by `length`.
        rows_matching, rows_mismatching: those of them with the text that `errors.expected_column` has, or another one.
        damaged: those of them that are there and count as missing.
    """

    def __init__(self, store: ShardStore, plan: Plan, shards: range, damaged: Iterable[int] = ()) -> None:
        """Read what is committed now.

        Raises:
            ShardError: a shard cannot be read.
            OSError: the folder cannot be read.
        """
        self._store, self.plan, self._shards = store, plan, shards
        self._commits: dict[int, Commit] = {}
        self.damaged = set(damaged)
        self.rows = plan.rows_in(shards)
        self.rows_done = self.rows_failed = self.rows_truncated = 0
        self.rows_matching = self.rows_mismatching = 0
        self.refresh()

    def refresh(self) -> None:
        """Count what other processes have committed meanwhile, and no longer what was removed.

        Raises:
            ShardError: a shard cannot be read.
            OSError: the folder cannot be read.
        """
        there = {shard for shard in self._store.committed() if shard in self._shards} - self.damaged
        for shard in self._commits.keys() - there:
            self._count(self._commits.pop(shard), -1)
        known = self._commits.keys() - {commit.shard for commit in self.short()}
        for commit in read_commits(self._store, self.plan, there - known).values():
            self.add(commit)

    def add(self, commit: Commit) -> None:
        """Count a shard that this process has committed; one of other shards is left out."""
        if commit.shard not in self._shards:
            return
        before = self._commits.get(commit.shard)
        if before is not None:
            self._count(before, -1)
        self._commits[commit.shard] = commit
        self._count(commit, 1)

    def _count(self, commit: Commit, sign: int) -> None:
        # By a later plan, a shard may have more rows.
        self.rows_done += sign * min(commit.rows, len(self.plan.rows(commit.shard)))
        self.rows_failed += sign * commit.failed
        self.rows_truncated += sign * commit.truncated
        self.rows_matching += sign * commit.matching
        self.rows_mismatching += sign * commit.mismatching

    def missing(self) -> list[int]:
        """The shards that are not committed, or not with all their rows, ascending."""
        short = {commit.shard for commit in self.short()}
        return [shard for shard in self._shards if shard not in self._commits or shard in short]

    def short(self) -> list[Commit]:
        """The commits of shards that have more rows now, by the plan, than when they were committed."""
        cut = [self._commits[shard] for shard in self.plan.cut if shard in self._commits]
        return [commit for commit in cut if commit.rows < len(self.plan.rows(commit.shard))]

    def with_failures(self) -> list[Commit]:
        """The commits of shards that hold failed rows, by shard."""
        return [commit for _, commit in sorted(self._commits.items()) if commit.errors]
