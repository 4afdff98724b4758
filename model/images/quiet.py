"""Keeps the C libraries that decode images from writing to the terminal.

libjpeg, libpng and libtiff print what they find wrong with a file, for example "Corrupt JPEG data: premature end of
data segment", without a word about which file it is.
"""

import contextlib
import ctypes
import logging
from collections.abc import Iterator

import cv2

# In glibc, `stderr` is a variable that a program may set. Only C's own stdio reads it: messages of Python and of the
# kernel, and file descriptor 2 itself, stay as they are.
_libc = ctypes.CDLL(None)
_libc.fopen.restype = ctypes.c_void_p
_stderr = ctypes.c_void_p.in_dll(_libc, "stderr")
_TERMINAL, _NOWHERE = _stderr.value, _libc.fopen(b"/dev/null", b"w") or _stderr.value

# Without any handler, Python prints warnings of Pillow's.
logging.getLogger("PIL").addHandler(logging.NullHandler())


@contextlib.contextmanager
def quiet_decoders() -> Iterator[None]:
    """Drop what decoders print. Takes a microsecond; of several threads, one may end another's silence early."""
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    _stderr.value = _NOWHERE
    try:
        yield
    finally:
        _stderr.value = _TERMINAL
        cv2.utils.logging.setLogLevel(level)
