"""Connections to the hosts that images come from, kept open in pools of urllib3 and used again.

A name is resolved for each new connection, all its addresses are checked, and the connection goes to one of these: the
name cannot resolve to another one in between. Certificates are verified against the name.
"""

import contextlib
import functools
import http.client
import logging
import os
import socket
import ssl
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

from run_batch.io.media.allowed_hosts import IpAddress, resolve

# urllib3 logs whole URLs there, whose query may hold a secret.
logging.getLogger("urllib3.connection").setLevel(logging.ERROR)

# Connections of one host that are kept: as many as a worker process downloads at once.
_KEPT_A_HOST = 8
# Hosts of which connections are kept; those of the host that was used least recently are closed.
_KEPT_HOSTS = 64
# An address that does not answer is given up after so long, while the name has others.
_CONNECT_SECONDS = 10.0


class Deadline:
    """Ends a download at a point in time, even while bytes still trickle in: shuts the sockets down that it uses.

    Attributes:
        at: the time, by `time.monotonic`.
    """

    _current = threading.local()

    def __init__(self, at: float) -> None:
        self.at = at
        self._sockets: list[socket.socket] = []
        self._lock = threading.Lock()
        self._timer = threading.Timer(self.left, self._shut_down)
        self._timer.daemon = True

    @property
    def left(self) -> float:
        """Seconds that are left, none below 0."""
        return max(self.at - time.monotonic(), 0.0)

    @classmethod
    def current(cls) -> "Deadline":
        """That of the download that this thread is at."""
        deadline: Deadline = cls._current.deadline
        return deadline

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Around the download."""
        Deadline._current.deadline = self
        self._timer.start()
        try:
            yield
        finally:
            self._timer.cancel()
            with self._lock:
                for used in self._sockets:
                    used.close()
                self._sockets.clear()

    def watch(self, used: socket.socket) -> None:
        """Shut this socket down, too, when the time is over."""
        with self._lock:
            # A descriptor of its own: the connection's is another number once it is closed, or wrapped for TLS.
            self._sockets.append(socket.socket(fileno=os.dup(used.fileno())))
        if not self.left:
            self._shut_down()

    def _shut_down(self) -> None:
        with self._lock:
            for used in self._sockets:
                with contextlib.suppress(OSError):  # closed by the other end already
                    used.shutdown(socket.SHUT_RDWR)


class _BoundedResponse(http.client.HTTPResponse):
    """A response of which `read` takes no more memory than was asked for, whatever sizes its chunks claim to have."""

    def read(self, amt: int | None = None) -> bytes:
        if amt is None:
            return super().read()
        buffer = bytearray(amt)
        count = self.readinto(buffer)
        return bytes(memoryview(buffer)[:count])


class _CheckedConnection(HTTPConnection):
    """Connects to addresses that were checked, one after the other until one answers."""

    response_class = _BoundedResponse

    def __init__(self, *arguments: Any, private: bool, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._private = private

    def _new_conn(self) -> socket.socket:
        deadline = Deadline.current()
        # A resolver that hangs is told from a host that does: it gets half of the time.
        addresses = resolve(self.host, self.port, deadline.left / 2, self._private)
        for position, address in enumerate(addresses):
            others = len(addresses) - position - 1
            seconds = min(deadline.left / (others + 1), _CONNECT_SECONDS) if others else deadline.left
            try:
                return _connect(address, self.port, seconds, deadline)
            except OSError:
                if not others or not deadline.left:
                    raise
        raise ConnectionError("no address")  # not reached: there is at least one

    def request(self, *arguments: Any, **options: Any) -> None:
        if self.sock is not None:  # one that was kept open
            Deadline.current().watch(self.sock)
        super().request(*arguments, **options)


class _CheckedTlsConnection(_CheckedConnection, HTTPSConnection):
    """The same by TLS."""


def _connect(address: IpAddress, port: int, seconds: float, deadline: Deadline) -> socket.socket:
    connected = socket.socket(socket.AF_INET if address.version == 4 else socket.AF_INET6, socket.SOCK_STREAM)
    try:
        connected.settimeout(max(seconds, 0.001))
        connected.connect((str(address), port))
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connected.settimeout(max(deadline.left, 0.001))
        deadline.watch(connected)
    except BaseException:
        connected.close()
        raise
    return connected


class _HttpPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _CheckedConnection


class _HttpsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _CheckedTlsConnection


class ConnectionPools:
    """The pools of this process, one a host; may be used from any of its threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pools: OrderedDict[tuple[str, str, int, bool], urllib3.HTTPConnectionPool] = OrderedDict()

    def pool(self, scheme: str, host: str, port: int, private: bool) -> urllib3.HTTPConnectionPool:
        """The pool of a host.

        Args:
            private: whether its connections may go to addresses outside the public internet.
        """
        key = (scheme, host, port, private)
        with self._lock:
            pool = self._pools.pop(key, None) or self._make(*key)
            self._pools[key] = pool
            while len(self._pools) > _KEPT_HOSTS:
                # Its connections are closed once no thread uses it any more.
                self._pools.popitem(last=False)
        return pool

    def _make(self, scheme: str, host: str, port: int, private: bool) -> urllib3.HTTPConnectionPool:
        options: dict[str, Any] = {"maxsize": _KEPT_A_HOST, "private": private}
        if scheme == "http":
            return _HttpPool(host, port, **options)
        return _HttpsPool(host, port, ssl_context=self._context, **options)

    @functools.cached_property
    def _context(self) -> ssl.SSLContext:
        """One for all hosts: to load the certificates of the system takes 20 ms."""
        return ssl.create_default_context()


POOLS = ConnectionPools()


def _start_anew() -> None:
    """Leave the connections to the parent process: two processes on one connection would read each other's answers."""
    POOLS.__init__()  # type: ignore[misc]


os.register_at_fork(after_in_child=_start_anew)
