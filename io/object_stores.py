"""Stores of objects behind URLs, such as S3 and Google Cloud Storage, opened by way of fsspec."""

import functools
import os
from collections.abc import Mapping
from typing import Any

# What to install for the file systems that are no part of fsspec, by scheme.
PACKAGES: Mapping[str, str] = {
    **dict.fromkeys(("s3", "s3a"), "s3fs"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("az", "abfs", "abfss"), "adlfs"),
    "hf": "huggingface_hub",
}
# Those whose URLs rows may name: none of them leads to a file or a process of this machine.
_OF_ROWS = frozenset(PACKAGES) - {"hf"}
_KNOWN = "there are s3://, gs://, az://, hf://datasets/, https:// and others of fsspec; a path begins without them"
# Of S3: requests are repeated here, not by each of the two libraries below; parts in memory are 50 MiB each.
_S3_REQUESTS: Mapping[str, Any] = {"connect_timeout": 10, "read_timeout": 60, "retries": {"total_max_attempts": 1}}
_S3_PARTS_AT_ONCE = 4


class MissingStoreError(Exception):
    """There is no file system for a URL, or its package is not installed; the message says how to install it."""


def is_object_url(url: str) -> bool:
    """Whether a URL is of a store of objects that rows may name: `s3://`, `gs://`, `az://` and their other names."""
    return url.partition("://")[0].lower() in _OF_ROWS and "://" in url


def open_store(url: str) -> tuple[Any, str]:
    """fsspec's file system for a URL, which repeats no request by itself, and the URL's path in it.

    Raises:
        MissingStoreError: its package is not installed.
        Exception: of any type, from the file system.
    """
    scheme = url.partition("://")[0].lower()
    options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
    if scheme in ("s3", "s3a"):
        import fsspec

        own = fsspec.config.conf.get("s3", {}).get("config_kwargs", {})
        options |= {"config_kwargs": {**_S3_REQUESTS, **own}, "max_concurrency": _S3_PARTS_AT_ONCE}
    files, path = file_system(url, **options)
    if scheme in ("s3", "s3a"):
        files.retries = 1
    return files, path


def file_system(url: str, **options: Any) -> tuple[Any, str]:
    """fsspec's file system for a URL, and the URL's path in it.

    Raises:
        MissingStoreError: there is none, or its package is not installed.
        Exception: of any type, from the file system.
    """
    import fsspec

    scheme = url.partition("://")[0]
    try:
        found: tuple[Any, str] = fsspec.core.url_to_fs(url, **options)
    except ImportError as error:
        package = PACKAGES.get(scheme)
        install = f"pip install {package}" if package else str(error)
        raise MissingStoreError(f"needs {package or 'a package'} for {scheme}:// : {install}") from None
    except ValueError as error:
        if not str(error).startswith("Protocol not known"):
            raise
        raise MissingStoreError(f"begins with {scheme}://, which is no file system; {_KNOWN}") from None
    return found


def store_of_process(bucket: str) -> Any:
    """The file system of a bucket's URL, opened once in each process: a client of S3 alone takes a third of a second.

    Raises the errors of `open_store`.
    """
    return _store_of_process(bucket, os.getpid())


@functools.lru_cache(maxsize=16)
def _store_of_process(bucket: str, process: int) -> Any:
    return open_store(bucket)[0]
