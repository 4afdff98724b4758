"""A file of a remote file system that is read on where a connection broke off."""

import contextlib
import errno
import io
import time
from collections.abc import Callable
from typing import Any, TypeVar

from run_batch.io import transient
from run_batch.io.inputs.read_errors import unreachable
from run_batch.io.inputs.source import InputError
from run_batch.io.transient import describe, may_pass, refusal, retry

T = TypeVar("T")

# Of small reads: a request costs the time of megabytes.
_BUFFER_BYTES = 8 << 20


class RemoteFile:
    """A file that is open for reading. After a failure that may pass it is opened anew and read from the same position.

    It has what pyarrow needs of a Python file.
    """

    def __init__(self, open_file: Callable[[], Any], path: str) -> None:
        """Open the file.

        Args:
            open_file: opens it for reading in binary; called again after each failure.
            path: names the file in errors.

        Raises:
            FileNotFoundError: there is no such file.
            PermissionError: it may not be read.
            UnreachableInputError: the network fails for longer than is waited for.
            InputError: it cannot be opened.
        """
        self._open_file, self._path = open_file, path
        self._file: Any = None
        self._position = 0
        self.closed = False
        self._size: int = self._try(lambda file: file.seek(0, io.SEEK_END))

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes, fewer only at the end of the file; all that is left if `size` is negative.

        Raises:
            FileNotFoundError, PermissionError, UnreachableInputError, InputError: see `__init__`.
        """
        left = max(self._size - self._position, 0)
        wanted = left if size is None or size < 0 else min(size, left)

        def read_there(file: Any) -> bytes:
            file.seek(self._position)
            content: bytes = file.read(wanted)
            if len(content) < wanted:
                raise ConnectionError(f"{len(content):,} of {wanted:,} bytes came")
            return content

        content = self._try(read_there) if wanted else b""
        self._position += len(content)
        return content

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move to a position, which is read from next."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(start + offset, 0)
        return self._position

    def tell(self) -> int:
        """The position that is read from next."""
        return self._position

    def readable(self) -> bool:
        """True: the file is open for reading."""
        return True

    def close(self) -> None:
        """Close the file."""
        self.closed = True
        self._drop()

    def _try(self, action: Callable[[Any], T]) -> T:
        def once() -> T:
            try:
                if self._file is None:
                    self._file = self._open_file()
                return action(self._file)
            except Exception:
                self._drop()
                raise

        try:
            # Where the first answer of an http server was lost, fsspec takes it for one that sends whole files alone.
            for pause in transient.jittered(transient.STORAGE_PAUSES):
                with contextlib.suppress(ValueError):
                    return retry(once, transient.REMOTE_PAUSES)
                time.sleep(pause)
            return retry(once, transient.REMOTE_PAUSES)
        except Exception as error:  # every file system has errors of its own
            if may_pass(error):
                raise unreachable(self._path, error) from error
            if refused := refusal(error):
                raise PermissionError(errno.EACCES, describe(refused), self._path) from error
            if isinstance(error, FileNotFoundError):
                raise
            raise InputError(f"{self._path} cannot be read: {describe(error)}") from error

    def _drop(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(Exception):
                file.close()


def buffered(file: RemoteFile, stop: int | None = None) -> io.BufferedReader:
    """A file whose small reads are one request.

    Args:
        stop: the file seems to end here: what lies behind it is not fetched ahead.
    """
    return io.BufferedReader(_RawFile(file, stop), _BUFFER_BYTES)


class _RawFile(io.RawIOBase):
    """A remote file as Python's buffers take it."""

    def __init__(self, file: RemoteFile, stop: int | None) -> None:
        self._file, self._stop = file, stop

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def readinto(self, buffer: Any) -> int:
        left = len(buffer) if self._stop is None else max(self._stop - self._file.tell(), 0)
        content = self._file.read(min(len(buffer), left))
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        self._file.close()
        super().close()
