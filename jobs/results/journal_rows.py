"""Row results as the payload of journal records, and back.

MessagePack, typed: no code comes out of a file. With each result goes the attempt of its shard, which is how often the
shard had been committed before (0, until `--retry-failed` writes it again): a row that is left from an earlier attempt
is never taken for its successor.
"""

from collections.abc import Iterable

import msgspec

from run_batch.jobs.job.rows import RowResult

# (attempt, result)
JournalRow = tuple[int, RowResult]

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[JournalRow])


def encode_rows(rows: Iterable[JournalRow]) -> bytes:
    """The payload of one journal record."""
    return _encoder.encode(list(rows))


def decode_rows(payload: bytes) -> list[JournalRow]:
    """The rows of one journal record."""
    return _decoder.decode(payload)
