"""WebDataset's tar shards: samples in the order of the archive, read in place, and hostile archives refused."""

import io
import json
import struct
import tarfile
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest

from run_batch.io.inputs import tar_shards
from run_batch.io.inputs.input_files import InputFiles
from run_batch.io.inputs.open_files import open_files
from run_batch.io.inputs.source import InputError, Source


def add(archive: tarfile.TarFile, name: str, content: bytes, **facts: Any) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for key, value in facts.items():
        setattr(info, key, value)
    archive.addfile(info, io.BytesIO(content))


def write(path: Path, samples: int = 40, form: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, "w", format=form) as archive:
        archive.addfile(_folder("a"))
        add(archive, "README", b"no extension: no sample")
        for n in range(samples):
            key = f"a/{'long/' * 40 if n % 7 == 3 else ''}käse{n:03d}"
            add(archive, f"{key}.jpg", bytes([n]) * (n * 10))
            if n % 3:
                add(archive, f"{key}.TXT", f"text {n} ü".encode())
            add(archive, f"{key}.json", json.dumps({"n": n, "score": n if n else 0.5}).encode())
            add(archive, f"{key}.left.png", b"left")
    return path


def _folder(name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE
    return info


def expected(n: int) -> dict[str, Any]:
    key = f"a/{'long/' * 40 if n % 7 == 3 else ''}käse{n:03d}"
    text = f"text {n} ü" if n % 3 else None
    score = float(n) if n else 0.5
    return {
        "__key__": key,
        "jpg": bytes([n]) * (n * 10),
        "json": {"n": n, "score": score},
        "left.png": b"left",
        "txt": text,
    }


def read(source: Source, start: int, stop: int, columns: list[str] | None = None) -> list[dict[str, Any]]:
    batches = list(source.cursor(columns or source.schema.names, 3).read(start, stop))
    assert all(0 < batch.records.num_rows <= 3 for batch in batches)
    return [row for batch in batches for row in batch.records.to_pylist()]


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_any_stretch_of_samples_is_what_was_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: int) -> None:
    monkeypatch.setattr(tar_shards, "_BLOCK_BYTES", 8000)
    path = write(tmp_path / "shard.tar", form=form)
    source = open_files([str(path)], None)
    assert source.num_rows == 40 and sorted(source.schema.names) == sorted(expected(1))
    assert source.schema.field("txt").type == pa.string() and source.schema.field("jpg").type == pa.binary()
    assert len([row for rows in source.starts() for row in rows]) > 5
    for start in range(0, 40, 7):
        for stop in range(start + 1, 41, 9):
            assert read(source, start, stop) == [expected(n) for n in range(start, stop)]
    again = open_files([str(path)], None, source.index)
    assert read(again, 20, 22, ["json", "__key__"]) == [
        {name: expected(n)[name] for name in ("json", "__key__")} for n in (20, 21)
    ]
    assert source.row_names(39, 40) == ["shard.tar:39"]


def test_shards_of_a_folder_share_their_columns(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "0.tar", "w") as archive:
        add(archive, "x.jpg", b"x")
    with tarfile.open(tmp_path / "1.tar", "w") as archive:
        add(archive, "y.png", b"y")
        add(archive, "y.json", b'{"a": "b"}')
    source = open_files([str(tmp_path)], None)
    assert read(source, 0, 2) == [
        {"__key__": "x", "jpg": b"x", "png": None, "json": None},
        {"__key__": "y", "jpg": None, "png": b"y", "json": {"a": "b"}},
    ]


def test_of_files_that_no_column_needs_headers_alone_are_read(tmp_path: Path) -> None:
    class Counted(io.FileIO):
        total = 0

        def readinto(self, buffer: Any) -> int | None:
            count = super().readinto(buffer)
            Counted.total += count or 0
            return count

    with tarfile.open(tmp_path / "0.tar", "w") as archive:
        for n in range(20):
            add(archive, f"{n}.jpg", b"x" * 1_000_000)
            add(archive, f"{n}.txt", b"word")
    source = open_files([str(tmp_path / "0.tar")], None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(InputFiles, "open_buffered", lambda _, path: io.BufferedReader(Counted(path)))
        assert read(source, 0, 20, ["txt"]) == [{"txt": "word"}] * 20
    assert Counted.total < 2_000_000


def hostile(path: Path, kind: str) -> None:
    with tarfile.open(path, "w") as archive:
        add(archive, "a.jpg", b"a" * 600)
        if kind == "link":
            add(archive, "b.jpg", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        elif kind == "hard link":
            add(archive, "b.jpg", b"", type=tarfile.LNKTYPE, linkname="a.jpg")
        elif kind == "device":
            add(archive, "b.jpg", b"", type=tarfile.CHRTYPE)
        elif kind == "absolute":
            add(archive, "/etc/b.jpg", b"b")
        elif kind == "outside":
            add(archive, "x/../../b.jpg", b"b")
        elif kind == "twice":
            add(archive, "a.jpg", b"b")
        elif kind == "json":
            add(archive, "b.json", b"{")
    content = path.read_bytes()
    if kind == "cut in content":
        path.write_bytes(content[:900])
    elif kind == "cut in header":
        path.write_bytes(content[: 512 + 1024 + 100])
    elif kind == "cut behind a file":
        path.write_bytes(content[: 512 + 1024])
    elif kind == "garbage":
        path.write_bytes(content[: 512 + 1024] + b"\x07" * 2048)
    elif kind == "joined":
        path.write_bytes(content + content)
    elif kind == "huge":
        header = bytearray(content[:512])
        header[124:136] = b"\x80" + (1 << 60).to_bytes(11, "big")
        header[148:156] = b" " * 8
        header[148:156] = f"{sum(header):06o}\0 ".encode()
        path.write_bytes(bytes(header) + content[512:])
    elif kind == "huge header":
        info = tarfile.TarInfo("././@LongLink")
        info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 40
        path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + content)
    elif kind == "nested headers":
        info = tarfile.TarInfo("././@LongLink")
        info.type, info.size = tarfile.GNUTYPE_LONGNAME, 4
        path.write_bytes((info.tobuf(tarfile.GNU_FORMAT) + struct.pack("4s508x", b"a.x")) * 3000 + content)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("link", r"'b\.jpg' is a link to '/etc/passwd'"),
        ("hard link", r"'b\.jpg' is a link to 'a\.jpg'"),
        ("device", r"'b\.jpg' is no plain file"),
        ("absolute", r"'/etc/b\.jpg' is a name that leads out"),
        ("outside", r"'x/\.\./\.\./b\.jpg' is a name that leads out"),
        ("twice", r"'a\.jpg' is there twice in its sample"),
        ("json", r"'b\.json': not JSON"),
        ("cut in content", r"cut off"),
        ("cut in header", r"cut off|truncated|unexpected end|no end mark"),
        ("cut behind a file", r"no end mark"),
        ("garbage", r"no header at byte 1,536"),
        ("joined", r"more behind its end"),
        ("huge", r"has 1,152,921,504,606,846,976 bytes, more than are left"),
        ("huge header", r"a header of 1,099,511,627,776 bytes"),
        ("nested headers", r"RecursionError|nested"),
    ],
)
def test_an_archive_that_is_damaged_or_hostile_is_refused_by_name(tmp_path: Path, kind: str, said: str) -> None:
    hostile(tmp_path / "shard.tar", kind)
    with pytest.raises(InputError, match=rf"shard\.tar cannot be read as a tar shard: .*({said})"):
        open_files([str(tmp_path / "shard.tar")], None)


def test_an_archive_without_files_has_no_rows(tmp_path: Path) -> None:
    tarfile.open(tmp_path / "0.tar", "w").close()
    write(tmp_path / "1.tar", 2)
    assert read(open_files([str(tmp_path)], None), 0, 2) == [expected(0), expected(1)]


def test_text_that_is_not_utf8_reaches_its_row(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "0.tar", "w") as archive:
        add(archive, "a.txt", b"\xff")
    (batch,) = open_files([str(tmp_path / "0.tar")], None).cursor(["txt"], 1).read(0, 1)
    with pytest.raises(UnicodeDecodeError):
        batch.records.to_pylist()


def test_remote_shards_are_read_as_local_ones(tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe("/tars/0.tar", write(tmp_path / "0.tar").read_bytes())
    source = open_files(["memory://tars"], None)
    assert read(source, 30, 33) == [expected(n) for n in (30, 31, 32)]
