"""The journal: whole records back, nothing of what is torn, damaged or another job's, and no segment too long."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from run_batch.io.outputs import journal
from run_batch.io.outputs.journal import JournalWriter, read_segment
from run_batch.jobs.job.rows import Generation, Pooled, RowFailure, Timing, TokenLogprob
from run_batch.jobs.results.journal_rows import JournalRow, decode_rows, encode_rows


def join(items: list[str]) -> bytes:
    return ",".join(items).encode()


def writer(folder: Path, name: str = "w", job: str = "job") -> JournalWriter[str]:
    return JournalWriter(folder, lambda shard: name, job, join)


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.journal"))


def write(folder: Path, records: list[list[str]]) -> Path:
    """A segment with one record for each list."""
    opened = writer(folder)
    for items in records:
        for item in items:
            opened.append(0, item)
        time.sleep(0.3)
    opened.close()
    (path,) = segments(folder)
    return path


def test_what_was_appended_is_read_back_by_the_same_job_alone(tmp_path: Path) -> None:
    path = write(tmp_path, [["a", "b"], ["c"]])
    assert list(read_segment(path, "job")) == [b"a,b", b"c"]
    assert list(read_segment(path, "another job")) == []
    assert list(read_segment(tmp_path / "gone", "job")) == []


def test_reading_ends_at_a_torn_or_damaged_record_without_an_error(tmp_path: Path) -> None:
    path = write(tmp_path, [["first"], ["second"]])
    content = path.read_bytes()
    whole = [b"first", b"second"]
    for length in range(len(content)):
        path.write_bytes(content[:length])
        found = list(read_segment(path, "job"))
        assert found == whole[: len(found)] and len(found) < 2
    for position in range(len(content)):
        path.write_bytes(content[:position] + bytes([content[position] ^ 0x41]) + content[position + 1 :])
        found = list(read_segment(path, "job"))
        assert found == whole[: len(found)] and len(found) < 2
    path.write_bytes(content + os.urandom(200))
    assert list(read_segment(path, "job")) == whole


def test_rows_are_on_disk_within_a_second_and_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    sync = os.fsync
    monkeypatch.setattr(journal.os, "fsync", lambda file: (synced.append(os.fstat(file).st_size), sync(file)))
    opened = writer(tmp_path)
    for number in range(20):
        opened.append(0, f"row {number}")
        time.sleep(0.05)
    time.sleep(0.7)
    (path,) = segments(tmp_path)
    read = b",".join(read_segment(path, "job")).split(b",")
    assert read == [b"row %d" % n for n in range(20)]
    assert synced[-1] == path.stat().st_size
    assert len(synced) <= 6, "fsync is to be batched"
    opened.close()


def test_a_segment_goes_once_all_its_shards_are_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "_SEGMENT_BYTES", 1)
    old = tmp_path / "old.journal"
    old.touch()
    opened = writer(tmp_path)
    opened.adopt(old, {1, 2})
    for shard in (0, 1, 2):
        opened.append(shard, f"of {shard}")
        time.sleep(0.25)
    assert len(segments(tmp_path)) == 4
    opened.settle(0)
    opened.settle(1)
    time.sleep(0.25)
    assert [path.name for path in segments(tmp_path)] == ["old.journal", "w-00002.journal"]
    opened.settle(2)
    opened.append(2, "late")
    opened.close()
    assert segments(tmp_path) == []


def test_a_journal_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    opened = writer(tmp_path / "missing")
    opened.append(0, "a")
    time.sleep(0.3)
    with pytest.raises(OSError, match="No such file"):
        opened.append(0, "b")
    with pytest.raises(OSError, match="No such file"):
        opened.close()


texts = st.text(max_size=20)  # what a tokenizer decodes has no lone surrogates
floats = st.floats(width=32, allow_nan=False)
count = st.integers(0, 10**6)


def tuples(items: Any, size: int = 3) -> Any:
    return st.lists(items, max_size=size).map(tuple)


candidates = tuples(st.builds(TokenLogprob, count, texts, floats, st.integers(0, 99)), 2)
generations = st.builds(
    Generation,
    row=count,
    texts=st.lists(texts, min_size=1, max_size=3).map(tuple),
    finish_reason=texts,
    prompt_tokens=count,
    generated_tokens=count,
    logprobs=st.none() | tuples(tuples(candidates)),
    other_finish_reasons=tuples(texts),
    token_ids=st.none() | tuples(tuples(count)),
    stop_reasons=st.none() | tuples(st.none() | texts),
    prompt_logprobs=st.none() | tuples(st.none() | candidates),
    timing=st.none() | st.builds(Timing, floats, floats, floats),
)
pooled = st.builds(Pooled, count, st.binary(max_size=16), count)
results = generations | pooled | st.builds(RowFailure, count, texts, texts)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), results), max_size=5))
def test_rows_come_back_as_they_were(rows: list[JournalRow]) -> None:
    assert decode_rows(encode_rows(rows)) == rows
