"""Sends batches of rows and mapped rows between processes in shared memory instead of through a pipe.

A value is pickled; the bytes of its tensors and Arrow batches go into an anonymous memory file (memfd), whose
descriptor is passed over the pipe's Unix socket. The rest of the pickle is small enough that sending it does not block
until the other end reads. Both ends are processes of the same run: no pickle comes from disk or from the network. The
kernel frees the memory when the last tensor or batch that uses it is dropped, and when the processes die.
"""

import io
import os
import pickle
import struct
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any

import pyarrow as pa
import torch


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


def send(connection: Connection, value: Any) -> None:
    """Send a value, its tensors and Arrow batches in shared memory.

    Args:
        connection: one end of a duplex Pipe.
        value: what can be pickled.

    Raises:
        ConnectionError: the other end is closed.
        OSError: no memory or no file descriptor is left; nothing has been sent.
    """
    buffers: list[pickle.PickleBuffer] = []
    stream = io.BytesIO()
    _Pickler(stream, protocol=5, buffer_callback=buffers.append).dump(value)
    views = [buffer.raw() for buffer in buffers]
    sizes = [view.nbytes for view in views]
    header = struct.pack(f"<I{len(sizes)}Q", len(sizes), *sizes)
    message = header + stream.getbuffer()
    if not any(sizes):
        connection.send_bytes(message)
        return
    descriptor = os.memfd_create("run-batch-rows", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            for view in views:
                file.write(view)
                file.write(b"\0" * (-view.nbytes % 64))
        # Only once the memory is filled: the other end would take the next message for the rest of half a message.
        connection.send_bytes(message)
        send_handle(connection, descriptor, None)
    finally:
        os.close(descriptor)


def receive(connection: Connection) -> tuple[Any, int]:
    """Wait for a value that `send` has sent.

    Returns:
        The value, and the bytes of its tensors and Arrow batches. They use the shared memory itself; it is not copied.

    Raises:
        EOFError, OSError: the other end is closed.
    """
    message = memoryview(connection.recv_bytes())
    (count,) = struct.unpack_from("<I", message)
    sizes = struct.unpack_from(f"<{count}Q", message, 4)
    body = message[4 + 8 * count :]
    if not any(sizes):
        return pickle.loads(body, buffers=[bytearray() for _ in sizes]), 0
    descriptor = recv_handle(connection)
    try:
        # Python's mmap keeps a descriptor open as long as the memory is used, and thousands of batches may wait.
        path, length = f"/proc/self/fd/{descriptor}", os.fstat(descriptor).st_size
        memory = memoryview(torch.from_file(path, shared=True, size=length, dtype=torch.uint8).numpy())
    finally:
        os.close(descriptor)
    views, offset = [], 0
    for size in sizes:
        views.append(memory[offset : offset + size])
        offset += size + -size % 64
    return pickle.loads(body, buffers=views), sum(sizes)
