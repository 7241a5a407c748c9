"""Makes connections: name lookup, the fastest of several addresses (RFC 8305), TLS with verification."""

import asyncio
import errno
import itertools
import socket
import ssl
from asyncio.staggered import staggered_race
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

from services.gateway.connection import Connection

NEXT_ADDRESS_AFTER = 0.25  # seconds (RFC 8305, section 5)
GOODBYE_WITHIN = 1.0  # seconds for the end of a TLS connection

# A lookup that hangs holds a thread, whoever has given up waiting for it; each dialer has one at a time.
_RESOLVER = ThreadPoolExecutor(32, "resolver")
# Our own shortage, which says nothing about the upstream.
_OURS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL}

# family and address, as `socket.getaddrinfo` has them
Address: TypeAlias = tuple[socket.AddressFamily, Any]


class Origin(NamedTuple):
    """Where connections go."""

    scheme: str
    host: str
    port: int


def tls_context(ca_file: Path | None = None) -> ssl.SSLContext:
    """TLS for clients: certificates and host names are verified, by the system's authorities and `ca_file`'s.

    Raises `OSError` for a file that cannot be used.
    """
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # by default it is what the system's OpenSSL says
    context.set_alpn_protocols(["http/1.1"])
    if ca_file:
        context.load_verify_locations(ca_file)
    return context


class Dialer:
    """Makes connections to one origin."""

    def __init__(self, origin: Origin, tls: ssl.SSLContext | None) -> None:
        self._origin, self._tls = origin, tls
        self._lookup: asyncio.Future[list[Address]] | None = None

    async def dial(self) -> Connection:
        """A new connection. Raises `OSError`, or `UnicodeError` for what is no host name."""
        sock = await _connected(await self._addresses())
        tls: dict[str, Any] = {}
        if self._tls:
            tls = {
                "ssl": self._tls,
                "server_hostname": self._origin.host,
                "ssl_shutdown_timeout": GOODBYE_WITHIN,
            }
        # From here on the socket is the transport's to close, whatever happens.
        _, connection = await asyncio.get_running_loop().create_connection(Connection, sock=sock, **tls)
        return connection

    async def _addresses(self) -> list[Address]:
        host, port = self._origin.host, self._origin.port
        try:
            return _lookup(host, port, socket.AI_NUMERICHOST)
        except socket.gaierror:
            pass
        if self._lookup is None or self._lookup.done():
            loop = asyncio.get_running_loop()
            self._lookup = loop.run_in_executor(_RESOLVER, partial(_lookup, host, port))
            self._lookup.add_done_callback(lambda future: future.cancelled() or future.exception())
        return await asyncio.shield(self._lookup)


def _lookup(host: str, port: int, flags: int = 0) -> list[Address]:
    """The addresses of `host` in the order of preference, families in turn (RFC 8305, section 4)."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags)
    families: dict[socket.AddressFamily, list[Address]] = {}
    for family, _, _, _, address in found:
        families.setdefault(family, []).append((family, address))
    turns = itertools.zip_longest(*families.values())
    return [address for turn in turns for address in turn if address]


async def _connected(addresses: list[Address]) -> socket.socket:
    if len(addresses) == 1:
        return await _connect(addresses[0])
    attempts = [partial(_connect, address) for address in addresses]
    winner, _, failures = await staggered_race(attempts, NEXT_ADDRESS_AFTER)
    if winner is None:
        raise _first(failures)
    sock: socket.socket = winner
    return sock


def _first(failures: Iterable[BaseException | None]) -> BaseException:
    return next(filter(None, failures), OSError("it has no address"))


async def _connect(address: Address) -> socket.socket:
    sock = socket.socket(address[0], socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(sock, address[1])
    except BaseException:
        sock.close()
        raise
    return sock


def is_ours(error: Exception) -> bool:
    """Whether a connection failed for want of something on this machine."""
    return isinstance(error, OSError) and error.errno in _OURS


def explain(error: Exception) -> str:
    """Why there is no connection, for people."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate cannot be verified: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason}"
    if isinstance(error, ConnectionRefusedError):
        return "it refuses connections"
    if isinstance(error, socket.gaierror | UnicodeError):
        return "its host name cannot be resolved"
    return f"no connection: {getattr(error, 'strerror', None) or error}"
