"""What has been committed, shard by shard: `commits.jsonl`, so that counting a job need not open all its shards.

Each process appends to a file of its own share. The shards themselves are the truth: one without a line, for instance
after a power cut, is counted from the shard.
"""

import json
import time
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from run_batch.io.outputs.shards import ShardStore
from run_batch.jobs.job.shares import SHARES_FOLDER

_COMMITS_FILE = "commits.jsonl"
_COUNTED_COLUMNS = ["error", "prompt_tokens", "generated_tokens"]


@dataclass(frozen=True, slots=True)
class Commit:
    """One committed shard.

    Attributes:
        attempt: how often it had been committed before.
        rows, prompt_tokens, generated_tokens: in it.
        errors: how many of its rows failed, by kind of error.
        time: seconds since the epoch.
    """

    shard: int
    attempt: int
    rows: int
    prompt_tokens: int
    generated_tokens: int
    errors: dict[str, int] = field(default_factory=dict)
    time: float = 0.0

    @property
    def failed(self) -> int:
        return sum(self.errors.values())


def count_shard(shard: int, attempt: int, table: pa.Table) -> Commit:
    """Args:
    table: with the columns `error`, `prompt_tokens` and `generated_tokens`.
    """
    kinds = Counter(error.partition(":")[0] for error in table["error"].drop_null().to_pylist())
    prompt, generated = (pc.sum(table[name]).as_py() or 0 for name in _COUNTED_COLUMNS[1:])
    return Commit(shard, attempt, len(table), prompt, generated, dict(kinds), time.time())


def errors_by_kind(commits: Iterable[Commit]) -> Counter[str]:
    """How many rows failed, by kind of error."""
    counts: Counter[str] = Counter()
    for commit in commits:
        counts.update(commit.errors)
    return counts


def record_commit(store: ShardStore, commit: Commit) -> None:
    """Raises:
    OSError: it cannot be written.
    """
    with open(store.own_folder / _COMMITS_FILE, "a") as file:
        file.write(json.dumps(asdict(commit), separators=(",", ":")) + "\n")


def read_commits(store: ShardStore, shards: Iterable[int]) -> dict[int, Commit]:
    """The counts of committed shards.

    Raises:
        ShardError: a shard cannot be read.
        OSError: the folder cannot be read.
    """
    run_folder = store.run_folder
    files = [run_folder / _COMMITS_FILE, *run_folder.glob(f"{SHARES_FOLDER}/*/{_COMMITS_FILE}")]
    latest: dict[int, Commit] = {}
    for file in files:
        for commit in _read(file):
            before = latest.get(commit.shard)
            if before is None or (before.attempt, before.time) < (commit.attempt, commit.time):
                latest[commit.shard] = commit
    wanted = list(shards)
    found = {shard: latest[shard] for shard in wanted if shard in latest}
    with ThreadPoolExecutor(max_workers=16) as pool:
        others = [shard for shard in wanted if shard not in found]
        counted = pool.map(lambda s: count_shard(s, store.info(s).attempt, store.read(s, _COUNTED_COLUMNS)), others)
    return found | dict(zip(others, counted, strict=True))


def _read(file: Path) -> list[Commit]:
    try:
        lines = file.read_text().splitlines()
    except FileNotFoundError:
        return []
    commits = []
    for line in lines:
        try:
            commits.append(Commit(**json.loads(line)))
        except (ValueError, TypeError):
            continue  # torn by a crash: the shard tells
    return commits
