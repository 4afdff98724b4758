"""Bad rows of every kind among good ones, through the whole command with real vLLM."""

import contextlib
import random
import threading
from pathlib import Path

import bad_rows
import pyarrow as pa
import pytest
from bad_rows import CASES, BadRow
from forked_commands import Command

import jobs

pytestmark = pytest.mark.engine

SEED = 20251124
# A worker that maps good rows alone takes about 0.9 GiB, most of it torch and vLLM.
MAX_WORKER_GIB = 2.5
BAD = {name for name, make in CASES.items() if make(random.Random(0)).kinds}


def interleaved(count: int) -> tuple[pa.Table, list[BadRow | None]]:
    """As many bad rows as good ones in random order, every kind of them, and what each bad row is."""
    rng = random.Random(SEED)
    names = [*sorted(CASES), *rng.choices(sorted(BAD), k=count)]
    trouble = [CASES[name](random.Random(f"{SEED} {i}")) for i, name in enumerate(names)]
    order: list[BadRow | None] = [*trouble, *[None] * len(trouble)]
    rng.shuffle(order)
    good = jobs.rows(len(order))
    rows = [
        BadRow((), bad_rows.of_bytes(good["image"][i]), good["prompt"][i].encode()) if row is None else row
        for i, row in enumerate(order)
    ]
    return bad_rows.columns(rows).append_column("uid", pa.array(good["uid"])), order


class MemoryWatch:
    """The most memory that any worker process of a command has held, in GiB."""

    def __init__(self, process: Command) -> None:
        self.most = 0.0
        self._process = process
        self._has_ended = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._has_ended.wait(0.1):
            for worker in self._process.workers():
                with contextlib.suppress(OSError):
                    status = Path(f"/proc/{worker}/status").read_text()
                    peaks = [int(entry.split()[1]) for entry in status.splitlines() if entry.startswith("VmHWM")]
                    self.most = max([self.most, *(peak / (1 << 20) for peak in peaks)])

    def finish(self) -> float:
        self._has_ended.set()
        self._thread.join()
        assert self.most > 0.1, "no worker was seen"
        return self.most


def test_bad_rows_among_good_ones_fail_alone_and_with_the_right_kind(tmp_path: Path, long_form: bool) -> None:
    table, order = interleaved(1000 if long_form else 20)
    bad_rows.make_media(tmp_path / "media")
    tables = {
        "input": {"sampling_column": "own", "media_root": str(tmp_path / "media")},
        "errors": {"max_fraction": 1.0},
        "preprocess": {"workers": 1},
    }
    job = jobs.write_job(tmp_path / "all", table, **tables)
    process = jobs.start(job)
    watch = MemoryWatch(process)
    ended = process.finish(timeout=900)
    memory = watch.finish()
    assert ended.returncode == 0, ended.stderr
    found = jobs.results(job).to_pylist()
    assert [row["row_id"] for row in found] == table["uid"].to_pylist()

    wrong = [
        ("good" if row is None else row.kinds, result["error"], result["text"])
        for row, result in zip(order, found, strict=True)
        if not _as_expected(row, result["error"], result["text"])
    ]
    assert not wrong, f"{len(wrong)} rows, the first of them: {wrong[:5]}"

    good = [i for i, row in enumerate(order) if row is None]
    alone = jobs.succeed(jobs.write_job(tmp_path / "good", table.take(good), **tables))["text"].to_pylist()
    assert [found[i]["text"] for i in good] == alone
    assert len(set(alone)) >= 8, "the texts hardly depend on the rows"
    assert "s3cret" not in ended.stderr and memory < MAX_WORKER_GIB
    failed = sum(row["error"] is not None for row in found)
    print(f"{len(good)} good and {failed} failed rows; a worker held {memory:.2f} GiB at most")


def _as_expected(row: BadRow | None, error: str | None, text: str | None) -> bool:
    if row is None or not row.kinds:
        return error is None and text is not None
    kind, _, message = (error or "").partition(": ")
    return kind in row.kinds and bool(message) and text is None
