"""Which hosts, addresses and buckets images may be downloaded from: the rules of a job, applied to what the resolver
answers."""

import errno
import ipaddress
import queue
import re
import socket
import threading
from collections.abc import Iterable
from dataclasses import dataclass

from run_batch.io.media.errors import MediaError
from run_batch.io.object_stores import is_object_url

# Error messages show no more of a URL.
_SHOWN_CHARACTERS = 200
DEFAULT_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]*[a-z0-9_])?")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class HostRules:
    """The hosts and buckets that images may be downloaded from.

    Attributes:
        allowed: `HOST` for the standard ports, or `HOST:PORT`, in lower case; or the URL of a bucket, or of a folder in
            one, without a slash at its end.
        private: whether addresses outside the public internet are allowed too.
    """

    allowed: frozenset[str] = frozenset()
    private: bool = False

    @classmethod
    def of(cls, hosts: Iterable[str], private: bool) -> "HostRules":
        """Make rules of the job settings `input.allowed_hosts` and `input.allow_private_hosts`."""
        entries = (host.rstrip("/") if is_object_url(host) else host.lower().rstrip(".") for host in hosts)
        return cls(frozenset(entries), private)

    def check_object(self, url: str) -> None:
        """Refuse the URL of an object whose bucket is not listed, nor a folder in it that holds the object.

        Raises:
            MediaError: `url_not_allowed`.
        """
        ends = (index for index, sign in enumerate(url) if sign == "/")
        if not any(url[:end] in self.allowed for end in ends):
            bucket = "/".join(url.split("/", 3)[:3])
            raise MediaError("url_not_allowed", f"{bucket[:_SHOWN_CHARACTERS]} is not in input.allowed_hosts")

    def check_host(self, scheme: str, host: str, port: int) -> None:
        """Refuse a host that is not listed.

        Raises:
            MediaError: `url_not_allowed`.
        """
        shown = f"[{host}]" if ":" in host else host
        names = {f"{shown}:{port}"} | ({shown} if port == DEFAULT_PORTS[scheme] else set())
        if not names & self.allowed:
            name = shown if port == DEFAULT_PORTS[scheme] else f"{shown}:{port}"
            raise MediaError("url_not_allowed", f"{name} is not in input.allowed_hosts")


def is_host_entry(text: str) -> bool:
    """Whether `text` can stand in `input.allowed_hosts`: HOST or HOST:PORT without scheme, path or wildcard, or the
    URL of a bucket or of a folder in one.
    """
    if is_object_url(text):
        return re.fullmatch(r"[^/@*?\0\s]+(/[^*?\0]*)?", text.partition("://")[2]) is not None and "::" not in text
    host, colon, port = text.lower().rstrip(".").rpartition(":")
    if text.startswith("["):
        address, _, port = text[1:].partition("]")
        return _is_ipv6(address) and (not port or (port[0] == ":" and _is_port(port[1:])))
    if not colon:
        host, port = port, "80"
    return len(host) <= 253 and _HOST.fullmatch(host) is not None and _is_port(port)


def _is_ipv6(text: str) -> bool:
    try:
        return bool(ipaddress.IPv6Address(text))
    except ValueError:
        return False


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and 0 < int(text[:6]) < 65536


def resolve(host: str, port: int, seconds: float, private: bool) -> list[IpAddress]:
    """Resolve `host` to the addresses to connect to, in the resolver's order; all of them have to be allowed.

    One private address among public ones is refused too: that is what DNS rebinding looks like.

    Args:
        seconds: longest wait for the resolver.
        private: whether addresses outside the public internet are allowed.

    Raises:
        MediaError: `url_failed` for a name that has no address, `url_not_allowed` for an address that is not public.
        OSError: the resolver does not answer, or cannot say now.
    """
    answers = _look_up(host, port, seconds)
    if not answers:
        raise MediaError("url_failed", f"{host} has no address")
    addresses = [ipaddress.ip_address(answer.partition("%")[0]) for answer in answers]
    if not private and not all(map(is_public, addresses)):
        raise MediaError(
            "url_not_allowed", f"{host} leads to a private or reserved address; input.allow_private_hosts allows it"
        )
    return list(dict.fromkeys(addresses))


def _look_up(host: str, port: int, seconds: float) -> list[str]:
    """Ask the resolver, for `seconds` at most: in a thread, as getaddrinfo has no time limit of its own."""
    answer: queue.SimpleQueue[list[str] | OSError | UnicodeError] = queue.SimpleQueue()

    def ask() -> None:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            answer.put([str(address[0]) for *_, address in found])
        except (OSError, UnicodeError) as error:
            answer.put(error)

    threading.Thread(target=ask, name="look-up", daemon=True).start()
    try:
        found = answer.get(timeout=max(seconds, 0.0))
    except queue.Empty:
        raise TimeoutError(errno.ETIMEDOUT, "the address of the host was not found in time") from None
    if isinstance(found, list):
        return found
    if isinstance(found, socket.gaierror) and found.errno in (socket.EAI_AGAIN, socket.EAI_FAIL):
        raise ConnectionError(found.errno, f"the resolver cannot find the host now: {found.strerror}") from found
    raise MediaError("url_failed", f"{host} has no address that can be found") from found


def is_public(address: IpAddress) -> bool:
    """Whether an address, or the IPv4 address embedded in it, belongs to the public internet."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
        if address.is_site_local or address.teredo:
            return False
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)
