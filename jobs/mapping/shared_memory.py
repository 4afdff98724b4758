"""Sends batches of rows and mapped rows between processes in shared memory instead of through a pipe.

A value is pickled; the bytes of its tensors and Arrow batches lie in the sender's arena (row_arena.py), or go into an
anonymous memory file (memfd), whose descriptor is passed over the pipe's Unix socket. The rest of the pickle is small
enough that sending it does not block until the other end reads. Both ends are processes of the same run: no pickle
comes from disk or from the network. The memory is freed when the last tensor or batch that uses it is dropped, and when
the processes die.
"""

import io
import os
import pickle
import struct
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any, NamedTuple

import pyarrow as pa
import torch

from run_batch.jobs.mapping.row_arena import BorrowedArena, Lent, RowArena, aligned

# Values of a list, 0 for a single value that is no list of parts; the ticket in the arena, or -1; the number of
# buffers, whose sizes follow, and then their offsets.
_HEADER = struct.Struct("<IiI")
# Such a part of a list's bytes is little: where the features of an image belong in a prompt, and other tensors that a
# row has besides those of its images.
_LITTLE = 128


def _rebuild_tensor(buffer: Any, dtype: torch.dtype, shape: Sequence[int]) -> torch.Tensor:
    if not len(buffer):
        return torch.empty(tuple(shape), dtype=dtype)
    return torch.frombuffer(buffer, dtype=dtype).view(tuple(shape))


def _rebuild_batch(buffer: Any) -> pa.RecordBatch:
    with pa.ipc.open_stream(pa.py_buffer(buffer)) as reader:
        return reader.read_next_batch()


class _Pickler(pickle.Pickler):
    """Pickles tensors and Arrow batches with their bytes out of band (pickle protocol 5)."""

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is pa.RecordBatch:
            # The IPC stream holds the batch's rows alone; the buffers of a slice are those of the whole.
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, obj.schema) as writer:
                writer.write_batch(obj)
            return _rebuild_batch, (pickle.PickleBuffer(sink.getvalue()),)
        if type(obj) is not torch.Tensor:
            return NotImplemented
        data = obj.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        return _rebuild_tensor, (pickle.PickleBuffer(data), obj.dtype, tuple(obj.shape))


class _Message:
    """Values that are pickled one after the other, and sent together."""

    def __init__(self) -> None:
        self.count = self.nbytes = 0
        self._buffers: list[pickle.PickleBuffer] = []
        self._views: list[memoryview] = []
        self._stream = io.BytesIO()
        # One for all values: what they have in common is pickled once.
        self._pickler = _Pickler(self._stream, protocol=5, buffer_callback=self._buffers.append)

    def add(self, value: Any, most_bytes: int | None = None) -> bool:
        """Add a value; False if it is not the first, and with it the message had more than `most_bytes` bytes.

        What it has in common with the values before takes none; what is little beside `most_bytes` does not count.
        """
        begin = self._stream.tell()
        self._pickler.dump(value)
        views = [buffer.raw() for buffer in self._buffers]
        self._buffers.clear()
        nbytes = sum(view.nbytes for view in views)
        most = most_bytes if most_bytes is not None else self.nbytes + nbytes
        if self.count and nbytes * _LITTLE > most and self.nbytes + nbytes > most:
            self._stream.truncate(begin)
            return False
        self.count, self.nbytes = self.count + 1, self.nbytes + nbytes
        self._views += views
        return True

    def send(self, connection: Connection, is_list: bool, arena: RowArena | None) -> tuple[int, int]:
        """Send the values, and give their number and the bytes of their buffers; see `send` for what it raises."""
        lent = arena.lend(self._views) if arena is not None and self.nbytes else None
        sizes = [view.nbytes for view in self._views]
        ticket, offsets = lent or Lent(-1, list(accumulate(map(aligned, sizes[:-1]), initial=0))[: len(sizes)])
        header = _HEADER.pack(self.count if is_list else 0, ticket, len(sizes))
        message = header + struct.pack(f"<{2 * len(sizes)}Q", *sizes, *offsets) + self._stream.getbuffer()
        if lent is not None or not self.nbytes:
            connection.send_bytes(message)
            return self.count, self.nbytes
        descriptor = os.memfd_create("run-batch-rows", os.MFD_CLOEXEC)
        try:
            with open(descriptor, "wb", closefd=False) as file:
                for view in self._views:
                    file.write(view)
                    file.write(b"\0" * (aligned(view.nbytes) - view.nbytes))
            # Only once the memory is filled: the other end would take the next message for the rest of half a message.
            connection.send_bytes(message)
            send_handle(connection, descriptor, None)
        finally:
            os.close(descriptor)
        return self.count, self.nbytes


def send(connection: Connection, value: Any) -> None:
    """Send a value, its tensors and Arrow batches in shared memory.

    Args:
        connection: one end of a duplex Pipe.
        value: what can be pickled.

    Raises:
        ConnectionError: the other end is closed.
        OSError: no memory or no file descriptor is left; nothing has been sent.
    """
    message = _Message()
    message.add(value)
    message.send(connection, is_list=False, arena=None)


def send_in_parts(
    connection: Connection, groups: Iterable[Iterable[Any]], part_bytes: int, arena: RowArena | None = None
) -> Iterator[tuple[int, int]]:
    """Send values as lists; the shared memory of a list is freed once its last value is dropped.

    Args:
        groups: of values. What the values of one list have in common is sent once; a list that is full is sent at the
            end of a group, before the next one is made.
        part_bytes: of the tensors and Arrow batches of one list at most, unless those of a single value are more.
        arena: of this process, which the other end has mapped; None for a memory file for each list.

    Yields:
        For each list that has been sent, its length and the bytes of its tensors and Arrow batches.

    Raises:
        ConnectionError, OSError: see `send`.
    """
    message = _Message()
    for values in groups:
        for value in values:
            if not message.add(value, part_bytes):
                yield message.send(connection, True, arena)
                message = _Message()
                message.add(value)
            del value  # or it would be held while the next one is made
        if message.nbytes >= part_bytes:
            sent = message.send(connection, True, arena)
            message = _Message()
            yield sent
    if message.count:
        yield message.send(connection, True, arena)


class Received(NamedTuple):
    """What has come through a pipe.

    Attributes:
        value: as it was sent. Its tensors and Arrow batches use the shared memory itself; it is not copied.
        nbytes: of these.
        pickled_bytes: of all else, pickled.
    """

    value: Any
    nbytes: int
    pickled_bytes: int


def receive(connection: Connection, arena: BorrowedArena | None = None) -> Received:
    """Wait for a value that `send` has sent, or a list of values that `send_in_parts` has.

    Args:
        arena: of the other end, if it has one.

    Raises:
        EOFError, OSError: the other end is closed.
    """
    message = memoryview(connection.recv_bytes())
    count, ticket, buffers = _HEADER.unpack_from(message)
    numbers = struct.unpack_from(f"<{2 * buffers}Q", message, _HEADER.size)
    sizes, offsets = numbers[:buffers], numbers[buffers:]
    body = message[_HEADER.size + 16 * buffers :]
    if ticket >= 0:
        assert arena is not None
        views: list[Any] = arena.views(ticket, offsets, sizes)
    elif any(sizes):
        memory = _receive_memory(connection)
        views = [memory[offset : offset + size] for offset, size in zip(offsets, sizes, strict=True)]
    else:
        views = [bytearray() for _ in sizes]
    unpickler = pickle.Unpickler(io.BytesIO(body), buffers=views)
    value = [unpickler.load() for _ in range(count)] if count else unpickler.load()
    return Received(value, sum(sizes), len(body))


def _receive_memory(connection: Connection) -> memoryview:
    descriptor = recv_handle(connection)
    try:
        # Python's mmap keeps a descriptor open as long as the memory is used, and thousands of batches may wait.
        path, length = f"/proc/self/fd/{descriptor}", os.fstat(descriptor).st_size
        return memoryview(torch.from_file(path, shared=True, size=length, dtype=torch.uint8).numpy())
    finally:
        os.close(descriptor)
