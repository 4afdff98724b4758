"""A folder of objects behind a URL, to which finished files are copied: S3, Google Cloud Storage, the Hub and what else
fsspec knows.

An object store shows an object whole or not at all. Whatever its client raises becomes a RemoteError.
"""

import contextlib
import functools
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from run_batch.io.object_stores import MissingStoreError, open_store
from run_batch.io.secrets import hide_secrets
from run_batch.io.transient import describe, may_pass, refusal

# A file of each process: a store takes one of the same name once a second.
_PROBE = f".run_batch/upload-check-{socket.gethostname()}-"


class RemoteError(Exception):
    """Something could not be done with a remote folder.

    Attributes:
        passes: whether the failure may pass by itself.
    """

    def __init__(self, message: str, passes: bool) -> None:
        self.passes = passes
        super().__init__(hide_secrets(message))


class MissingPackageError(RemoteError):
    """The package of a URL's file system is not installed; the message says how to install it."""


class RemoteFolder:
    """The folder behind a URL.

    Attributes:
        url: of the folder, without secrets.
        moved: a number that grows while bytes are sent.
    """

    def __init__(self, url: str) -> None:
        """Load the URL's file system; nobody is asked for anything yet.

        Raises:
            MissingPackageError: its package is not installed.
            RemoteError: there is no such file system, or the URL is none of its.
        """
        self.url, self._scheme = shown_url(url), url.partition("://")[0]
        self.moved = 0
        try:
            self._files, root = open_store(url)
        except MissingStoreError as error:
            raise MissingPackageError(str(error), passes=False) from None
        except Exception as error:  # every file system has errors of its own
            raise RemoteError(f"{self.url}: {describe(error)}", passes=False) from error
        self._root = root.rstrip("/")

    def check(self) -> None:
        """Find out whether files can be written there and removed, by doing that.

        A file on the Hub is a commit: there, only the repository and the token are looked at.

        Raises:
            RemoteError: they cannot.
        """
        with self._asking("cannot be written to"):
            if self._scheme == "hf":
                self._check_hub()
                return
            probe = f"{self._root}/{_PROBE}{os.getpid()}"
            self._files.pipe_file(probe, b"run-batch")
            self._files.rm_file(probe)

    def _check_hub(self) -> None:
        from huggingface_hub import HfApi

        HfApi(endpoint=self._files.endpoint, token=self._files.token).whoami()
        self._files.info("/".join(self._root.split("/")[:3]))

    def put(self, file: Path, name: str) -> str:
        """Copy a local file into the folder, over an earlier one of this name.

        Returns:
            The object's ETag, or what its file system has instead; empty where that has nothing alike.

        Raises:
            RemoteError: it cannot be copied, or is of another size there.
        """
        path = f"{self._root}/{name}"
        with self._asking(f"{name} cannot be written"):
            self._files.put_file(str(file), path, callback=_Progress(self))
            found = self._files.info(path)
        if found.get("size") != file.stat().st_size:
            raise RemoteError(f"{self.url}/{name} has {found.get('size')} bytes, unlike the file", passes=True)
        tags = (found.get(key) for key in ("ETag", "etag", "md5Hash", "blob_id"))
        return str(next(filter(None, tags), "")).strip('"')

    def write(self, name: str, content: bytes) -> None:
        """Write a small file.

        Raises:
            RemoteError: it cannot be written.
        """
        with self._asking(f"{name} cannot be written"):
            self._files.pipe_file(f"{self._root}/{name}", content)

    def remove(self, name: str) -> None:
        """Remove a file, if it is there.

        Raises:
            RemoteError: it cannot be removed.
        """
        path = f"{self._root}/{name}"
        with self._asking(f"{name} cannot be removed"):
            try:
                self._files.rm_file(path)
            except Exception:  # every file system has an error of its own for a file that is not there
                if self._is_there(path):
                    raise

    def _is_there(self, path: str) -> bool:
        try:
            self._files.info(path)
        except FileNotFoundError as error:
            if may_pass(error):
                raise
            return False
        return True

    @contextlib.contextmanager
    def _asking(self, problem: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # every file system has errors of its own
            raise RemoteError(
                f"{self.url}: {problem}: {describe(refusal(error) or error)}", passes=may_pass(error)
            ) from error
        self.moved += 1


def remote_folder(url: str) -> RemoteFolder:
    """The folder behind a URL, opened once in each process: a client of S3 alone takes a third of a second.

    Raises the errors of `RemoteFolder`.
    """
    return _folder_of_process(url, os.getpid())


@functools.lru_cache(maxsize=1)
def _folder_of_process(url: str, process: int) -> RemoteFolder:
    return RemoteFolder(url)


def shown_url(url: str) -> str:
    """A folder's URL without secrets and without a slash at its end."""
    return hide_secrets(url.rstrip("/"))


class _Progress:
    """fsspec's callback of a copy: whatever it is told, bytes are being sent."""

    def __init__(self, folder: RemoteFolder) -> None:
        self._folder = folder

    def __getattr__(self, name: str) -> Any:
        return self._note

    def _note(self, *arguments: Any, **keywords: Any) -> None:
        self._folder.moved += 1
