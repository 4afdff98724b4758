"""Takes the read-ahead from files of remote file systems: columns are read in turns, each from a place of its own."""

from typing import Any


def without_read_ahead(file: Any) -> Any:
    """Let a file of fsspec's fetch what it is asked for and no more.

    What it reads ahead for one column is thrown away for the next, and read again.
    """
    from fsspec.caching import BaseCache, BytesCache, ReadAheadCache

    if isinstance(getattr(file, "cache", None), ReadAheadCache | BytesCache):
        file.cache = BaseCache(file.blocksize, file.cache.fetcher, file.size)
    return file
