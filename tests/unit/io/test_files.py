"""Files that readers see as a whole, and digests that tell large files apart by samples."""

import os
from pathlib import Path

import pytest

from run_batch.io.files import replace_file, sample_file

BLOCK = 1 << 16


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "job.json"
    replace_file(path, b"old")
    replace_file(path, b"new", durable=False)
    assert path.read_bytes() == b"new" and os.listdir(tmp_path) == ["job.json"]

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        replace_file(path, b"newer")
    assert path.read_bytes() == b"new"


def test_the_sample_of_a_file_tells_its_size_its_ends_and_the_blocks_between(tmp_path: Path) -> None:
    def sample(content: bytes) -> bytes:
        (tmp_path / "weights").write_bytes(content)
        return sample_file(tmp_path / "weights", samples=3)

    size = 9 * BLOCK
    before = sample(bytes(size))
    assert before == sample(bytes(size)) and len(before) == 32
    assert sample(bytes(size + 1)) != before
    for position in (0, BLOCK - 1, 4 * BLOCK, 5 * BLOCK - 1, size - BLOCK, size - 1):
        assert sample(bytes(position) + b"x" + bytes(size - position - 1)) != before, position
    assert sample(bytes(2 * BLOCK) + b"x" + bytes(size - 2 * BLOCK - 1)) == before, "more is read than the samples"


def test_of_a_small_file_every_byte_counts(tmp_path: Path) -> None:
    def sample(content: bytes) -> bytes:
        (tmp_path / "config.json").write_bytes(content)
        return sample_file(tmp_path / "config.json", samples=2)

    assert len({sample(b""), sample(b"{}"), sample(b"[]")}) == 3
    content = bytes(2 * BLOCK)
    assert len({sample(content[:i] + b"x" + content[i + 1 :]) for i in range(0, len(content), 9973)}) == 14
