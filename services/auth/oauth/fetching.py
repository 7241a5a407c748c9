"""Fetching what a stranger names by URL, without being led into our own network (SSRF; OWASP API7:2023).

The address is checked where the connection is made, on what the name resolves to at that moment, so that a
name which changes its address between check and use (DNS rebinding) gains nothing. No redirect is followed,
no proxy or credential of the environment is used.
"""

import asyncio
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Any

import httpcore2

TIMEOUT = 5.0  # seconds for everything
# IPv6 that stands for an IPv4 address, and so for any (RFC 6052, RFC 3056, RFC 4380).
_TRANSLATED = tuple(map(IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")))


class CannotFetch(Exception):
    """There is nothing usable at the URL; the message says why in one sentence."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A document: its body, and its headers with names in lower case."""

    body: bytes
    headers: dict[str, str]


async def fetch(url: str, limit: int, *, private: bool = False) -> Fetched:
    """GET `url`, at most `limit` bytes. Raises `CannotFetch`. `private`: addresses that are not public may
    be asked too."""
    headers = [("Accept", "application/json"), ("User-Agent", "Lockgate")]
    try:
        async with (
            asyncio.timeout(TIMEOUT),
            httpcore2.AsyncConnectionPool(network_backend=_Guard(private=private)) as pool,
            pool.stream("GET", url, headers=headers) as response,
        ):
            if response.status != 200:
                raise CannotFetch(f"it answers with HTTP status {response.status}")
            body = bytearray()
            async for chunk in response.aiter_stream():
                body += chunk
                if len(body) > limit:
                    raise CannotFetch(f"it has more than {limit} bytes")
            given = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers]
            return Fetched(bytes(body), {name.lower(): value for name, value in given})
    except TimeoutError as error:
        raise CannotFetch(f"it does not answer within {TIMEOUT:g} seconds") from error
    except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException, OSError) as error:
        raise CannotFetch(f"it cannot be reached: {error or type(error).__name__}") from error


def is_public(address: str) -> bool:
    """Whether `address` is one of the open internet."""
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address) and (ip.ipv4_mapped or any(ip in network for network in _TRANSLATED)):
        return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


class _Guard(httpcore2.AsyncNetworkBackend):
    """Connects to public addresses only."""

    def __init__(self, *, private: bool) -> None:
        self._private = private
        self._backend = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses: list[Any] = list(dict.fromkeys(address[0] for *_, address in found))
        if not self._private and not all(map(is_public, addresses)):
            raise CannotFetch("it is not on the open internet")
        return await self._backend.connect_tcp(addresses[0], port, timeout, local_address, socket_options)
