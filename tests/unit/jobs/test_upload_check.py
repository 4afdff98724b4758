"""What keeps shards from being copied to `output.upload` is found before anything starts."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from committed_jobs import prepared
from object_store import DENIED, SLOW_DOWN, ObjectStore

from run_batch.io import transient
from run_batch.jobs.job.errors import JobError, MayPassError


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    store = ObjectStore(f"checked-{os.getpid()}-{time.monotonic_ns()}")
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(transient, "REMOTE_PAUSES", (0.01, 0.02))
    yield store
    store.stop()


def test_a_store_that_can_be_written_to_is_left_as_it_was(tmp_path: Path, store: ObjectStore) -> None:
    prepared(tmp_path, {"prompt": ["p"]}, output={"upload": f"s3://{store.bucket}/x"})
    assert store.asked and store.objects() == {}


@pytest.mark.parametrize(
    ("url", "fault", "kind", "said"),
    [
        ("s3://no-such-bucket/x", None, JobError, "bucket does not exist"),
        ("s3://BUCKET/x", DENIED, JobError, "cannot be written to: .*Access ?Denied"),
        ("s3://BUCKET/x", SLOW_DOWN, MayPassError, "cannot be written to"),
        ("gs://bucket/x", None, JobError, "pip install gcsfs"),
        ("nope://bucket/x", None, JobError, "begins with nope://, which is no file system"),
        ("results", None, JobError, "expected the URL of a folder"),
        ("file:///tmp/x", None, JobError, "expected the URL of a folder"),
        ("https://example.org/x", None, JobError, "expected the URL of a folder"),
    ],
)
def test_a_store_that_cannot_be_written_to_is_refused_with_the_reason(
    tmp_path: Path, store: ObjectStore, url: str, fault: tuple[int, str] | None, kind: type[Exception], said: str
) -> None:
    store.fault = lambda method, path: fault
    with pytest.raises(kind, match=f"output.upload.*{said}") as caught:
        prepared(tmp_path, {"prompt": ["p"]}, output={"upload": url.replace("BUCKET", store.bucket)})
    assert type(caught.value) is kind


def test_a_store_that_is_away_may_come_back(tmp_path: Path, store: ObjectStore) -> None:
    store.stop()
    with pytest.raises(MayPassError, match=r"output\.upload: .*Could not connect"):
        prepared(tmp_path, {"prompt": ["p"]}, output={"upload": f"s3://{store.bucket}/x"})
