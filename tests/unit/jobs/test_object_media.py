"""A job whose images are in a store of objects: what is found at its start, and what its workers read."""

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from object_store import ObjectStore
from pictures import encoded, picture

import jobs
from run_batch.jobs.check import check_job
from run_batch.jobs.job.config import load_config
from run_batch.jobs.job.errors import JobError
from run_batch.jobs.job.prepare import PreparedJob, prepare


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    store = ObjectStore(f"media-{os.getpid()}-{time.monotonic_ns()}")
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    store.client.put_object(Bucket=store.bucket, Key="photos/0.jpg", Body=encoded(picture(0), "JPEG"))
    yield store
    store.stop()


def prepared(folder: Path, images: list[str], **keys: Any) -> PreparedJob:
    columns = {"uid": [f"u{i}" for i in range(len(images))], "image": images, "prompt": ["what?"] * len(images)}
    job = jobs.write_job(folder, columns, input=keys)
    return prepare(load_config(job), writes=False)


def test_images_by_url_and_by_path_are_those_of_the_store(tmp_path: Path, store: ObjectStore) -> None:
    bucket = f"s3://{store.bucket}"
    by_url = prepared(tmp_path / "url", [f"{bucket}/photos/0.jpg", f"{bucket}/none.jpg"], allowed_hosts=[bucket])
    by_path = prepared(tmp_path / "path", ["0.jpg", "none.jpg"], media_root=f"{bucket}/photos")
    for job in (by_url, by_path):
        said, _ = check_job(job)
        assert "image_not_found: no object s3://" in said and said.count("none.jpg") == 1, said
    assert by_path.media_root == f"{bucket}/photos"


def test_a_media_root_that_is_not_there_is_refused_at_the_start(tmp_path: Path, store: ObjectStore) -> None:
    for root in (f"s3://{store.bucket}/photo", "s3://no-such-bucket-of-anybody"):
        with pytest.raises(JobError, match=f"input.media_root {root}"):
            prepared(tmp_path / root.rpartition("/")[2], ["0.jpg"], media_root=root)


@pytest.mark.parametrize("keys", [{"allowed_hosts": ["gs://photos"]}, {"media_root": "gs://photos"}])
def test_a_missing_package_is_named_at_the_start(
    tmp_path: Path, keys: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(JobError, match="gs://photos needs gcsfs for gs:// : pip install gcsfs"):
        prepared(tmp_path, ["0.jpg"], **keys)


@pytest.mark.parametrize("root", ["file:///data", "https://example.org/images", "s3://", "ssh://host/data"])
def test_other_urls_are_no_media_root(tmp_path: Path, root: str) -> None:
    with pytest.raises(JobError, match=r"input\.media_root .*in a store of objects"):
        prepared(tmp_path, ["0.jpg"], media_root=root)
