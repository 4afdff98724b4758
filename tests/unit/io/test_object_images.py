"""Images in a store of objects: an S3 server on this machine."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from object_store import DENIED, SLOW_DOWN, ObjectStore
from pictures import encoded, picture

from run_batch.io import transient
from run_batch.io.media.allowed_hosts import HostRules, is_host_entry
from run_batch.io.media.errors import MediaError
from run_batch.io.media.image_reader import MediaReader

IMAGES = {"photos/a.jpg": encoded(picture(1), "JPEG"), "photos/b c#?.png": encoded(picture(2)), "other/c.png": b"third"}


@pytest.fixture(scope="module")
def served() -> Iterator[ObjectStore]:
    store = ObjectStore(f"images-{os.getpid()}-{time.monotonic_ns()}")
    for key, content in IMAGES.items():
        store.client.put_object(Bucket=store.bucket, Key=key, Body=content)
    yield store
    store.stop()


@pytest.fixture
def store(served: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    for name, value in served.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(transient, "REMOTE_PAUSES", (0.01, 0.01))
    served.asked.clear()
    yield served
    served.fault = lambda method, path: None


def reader(store: ObjectStore, folder: str = "", root: str | None = None) -> MediaReader:
    entry = f"s3://{store.bucket}{folder}"
    return MediaReader(root, HostRules.of([] if root else [entry], private=False))


def error_of(media: MediaReader, cell: object) -> MediaError:
    with pytest.raises(MediaError) as caught:
        list(media.read(cell))
    return caught.value


def test_cells_with_urls_are_read_and_each_object_is_asked_for_once(store: ObjectStore) -> None:
    media = reader(store)
    cells = [f"s3://{store.bucket}/{key}" for key in IMAGES]
    media.announce(cells)
    assert [list(media.read(cell)) for cell in cells] == [[content] for content in IMAGES.values()]
    assert sorted(store.asked) == sorted(("GET", f"/{store.bucket}/{key}") for key in IMAGES)


def test_paths_below_a_media_root_in_a_store_are_read_ahead_and_nothing_outside_of_it(store: ObjectStore) -> None:
    media = reader(store, root=f"s3://{store.bucket}/photos/")
    cells = [["a.jpg", "./b c#?.png"], {"path": "a.jpg", "bytes": None}]
    media.announce(cells)
    assert list(media.read(cells[0])) == [IMAGES["photos/a.jpg"], IMAGES["photos/b c#?.png"]]
    assert list(media.read(cells[1])) == [IMAGES["photos/a.jpg"]]
    assert len(store.asked) == 2, "an object of two rows is read once"
    assert media.is_downloaded("a.jpg") and not media.is_downloaded(b"a.jpg")
    assert error_of(media, f"s3://{store.bucket}/other/c.png").kind == "url_not_allowed"
    for outside in ("../other/c.png", "/etc/passwd", "a/../../other/c.png", "", "a\0"):
        assert error_of(media, outside).kind == "path_not_allowed"
    assert len(store.asked) == 2


@pytest.mark.parametrize("folder", ["/photos", "/phot", "-other"])
def test_only_listed_buckets_and_folders_are_asked(store: ObjectStore, folder: str) -> None:
    media = reader(store, folder)
    allowed = f"s3://{store.bucket}/photos/a.jpg"
    if folder == "/photos":
        assert list(media.read(allowed)) == [IMAGES["photos/a.jpg"]]
    else:
        assert str(error_of(media, allowed)) == f"url_not_allowed: s3://{store.bucket} is not in input.allowed_hosts"
    store.asked.clear()
    for url in (
        f"s3://{store.bucket}/other/c.png",
        f"s3://{store.bucket}/photos/../other/c.png",
        f"s3://{store.bucket}/photos/%2e%2e/other/c.png",
        f"file:///{__file__}",
        f"simplecache::s3://{store.bucket}/photos/a.jpg",
        f"s3://{store.bucket}/photos::file:///etc/passwd",
        f"s3://{store.bucket}",
    ):
        assert error_of(media, url).kind in ("url_not_allowed", "path_not_allowed"), url
    assert store.asked == []


def test_what_fails_is_named_and_what_may_pass_is_tried_again(store: ObjectStore) -> None:
    media, url = reader(store), f"s3://{store.bucket}/photos/a.jpg"
    missing = error_of(media, f"s3://{store.bucket}/photos/none.jpg")
    assert missing.kind == "image_not_found" and f"s3://{store.bucket}/photos/none.jpg" in str(missing)
    left = [SLOW_DOWN, SLOW_DOWN]
    store.fault = lambda method, path: left.pop() if left else None
    assert list(media.read(url)) == [IMAGES["photos/a.jpg"]]
    store.fault = lambda method, path: DENIED
    store.asked.clear()
    denied = error_of(media, url)
    assert denied.kind == "url_failed" and url in str(denied) and "denied" in str(denied).lower().replace(" ", "")
    assert len(store.asked) == 1, "what does not pass is asked for once"
    store.fault = lambda method, path: SLOW_DOWN
    store.asked.clear()
    assert error_of(media, url).kind == "url_failed" and len(store.asked) == 3


def test_an_object_over_the_limit_is_refused(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("run_batch.io.media.image_reader.MAX_BYTES", 1000)
    large = error_of(reader(store), f"s3://{store.bucket}/photos/a.jpg")
    assert large.kind == "image_too_large" and "more than 1,000 bytes" in str(large)


def test_a_local_path_is_no_object(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"local")
    media = MediaReader(tmp_path, HostRules.of([f"s3://{store.bucket}"], private=False))
    assert list(media.read("a.jpg")) == [b"local"] and not media.is_downloaded("a.jpg") and store.asked == []


@pytest.mark.parametrize(
    ("entry", "fits"),
    [
        ("s3://photos", True),
        ("gs://photos/2024/", True),
        ("az://container", True),
        ("s3://", False),
        ("s3:///key", False),
        ("s3://user@bucket", False),
        ("s3://*", False),
        ("file:///etc", False),
        ("https://host", False),
        ("s3://a::file://b", False),
    ],
)
def test_what_can_stand_for_a_bucket_in_allowed_hosts(entry: str, fits: bool) -> None:
    assert is_host_entry(entry) == fits
