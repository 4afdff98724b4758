"""Mapped rows from a worker to the engine's process, without copying tensors through a pipe.

Python objects are pickled; the bytes of their tensors go, uncopied, into an anonymous memory file whose descriptor
is passed along. Both ends are processes of the same run: nothing pickled comes from disk or from the network. The
memory is freed when the last tensor is dropped, and when a process dies, whatever the way.
"""

import io
import mmap
import os
import pickle
import struct
from collections.abc import Sequence
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle, send_handle
from typing import Any

import torch


def _rebuild_tensor(buffer: Any, dtype: torch.dtype, shape: Sequence[int]) -> torch.Tensor:
    if not len(buffer):
        return torch.empty(tuple(shape), dtype=dtype)
    return torch.frombuffer(buffer, dtype=dtype).view(tuple(shape))


class _TensorPickler(pickle.Pickler):
    """Puts the bytes of tensors out of band."""

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is not torch.Tensor:
            return NotImplemented
        data = obj.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        return _rebuild_tensor, (pickle.PickleBuffer(data), obj.dtype, tuple(obj.shape))


def send(connection: Connection, value: Any) -> None:
    """Send `value`; its tensors travel in shared memory."""
    buffers: list[pickle.PickleBuffer] = []
    stream = io.BytesIO()
    _TensorPickler(stream, protocol=5, buffer_callback=buffers.append).dump(value)
    views = [buffer.raw() for buffer in buffers]
    sizes = [view.nbytes for view in views]
    header = struct.pack(f"<I{len(sizes)}Q", len(sizes), *sizes)
    connection.send_bytes(header + stream.getbuffer())
    if not any(sizes):
        return
    descriptor = os.memfd_create("run-batch-rows", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            for view in views:
                file.write(view)
                file.write(b"\0" * (-view.nbytes % 64))
        send_handle(connection, descriptor, None)
    finally:
        os.close(descriptor)


def receive(connection: Connection) -> tuple[Any, int]:
    """What `send` sent, and how many bytes its tensors take.

    Raises:
        EOFError, OSError: the other end is gone.
    """
    message = memoryview(connection.recv_bytes())
    (count,) = struct.unpack_from("<I", message)
    sizes = struct.unpack_from(f"<{count}Q", message, 4)
    body = message[4 + 8 * count :]
    if not any(sizes):
        return pickle.loads(body, buffers=[bytearray() for _ in sizes]), 0
    descriptor = recv_handle(connection)
    try:
        memory = memoryview(mmap.mmap(descriptor, 0))
    finally:
        os.close(descriptor)
    views, offset = [], 0
    for size in sizes:
        views.append(memory[offset : offset + size])
        offset += size + -size % 64
    return pickle.loads(body, buffers=views), sum(sizes)
