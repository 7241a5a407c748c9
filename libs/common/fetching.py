"""Asking what a stranger names by URL, without being led into our own network (SSRF; OWASP API7:2023).

The address is checked where the connection is made, on what the name resolves to at that moment, so that a
name which changes its address between check and use (DNS rebinding) gains nothing. No redirect is followed,
no proxy or credential of the environment is used.
"""

import asyncio
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

import httpcore2

TIMEOUT = 5.0  # seconds for everything
# Of IPv6 only this is the open internet (RFC 4291, section 2.4), without what stands for an IPv4 address, and
# so for any (RFC 3056, RFC 4380), and without examples (RFC 9637).
_GLOBAL_UNICAST = IPv6Network("2000::/3")
_NOT_PUBLIC = tuple(map(ip_network, (
    "2002::/16", "2001::/32", "3fff::/20",
    "192.0.0.0/24", "192.88.99.0/24",  # RFC 6890, where one cloud has its metadata; RFC 7526
    "168.63.129.16/32",  # what every machine in another cloud reaches as its host
)))  # fmt: skip
_JSON = {"Accept": "application/json"}


class CannotFetch(Exception):
    """There is nothing usable at the URL; the message says why in one sentence."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """An answer: its body, and its headers with names in lower case."""

    body: bytes
    headers: dict[str, str]
    status: int = 200


async def fetch(url: str, limit: int, *, private: bool = False) -> Fetched:
    """GET `url`, at most `limit` bytes. Raises `CannotFetch`. `private`: addresses that are not public may
    be asked too."""
    answer = await ask("GET", url, limit, private=private)
    if answer.status != 200:
        raise CannotFetch(f"it answers with HTTP status {answer.status}")
    return answer


async def ask(
    method: str,
    url: str,
    limit: int,
    *,
    headers: Mapping[str, str] = _JSON,
    body: bytes = b"",
    private: bool = False,
    timeout: float = TIMEOUT,
) -> Fetched:
    """The answer to one request, whatever its status; with a `limit` of 0 its body is not read. Raises
    `CannotFetch`."""
    given = [("User-Agent", "Lockgate"), *headers.items()]
    if body or method == "POST":
        given.append(("Content-Length", str(len(body))))
    try:
        async with (
            asyncio.timeout(timeout),
            httpcore2.AsyncConnectionPool(network_backend=_Guard(private=private)) as pool,
            pool.stream(method, url, headers=given, content=body) as response,
        ):
            found = await _read(response, limit) if limit else b""
            return Fetched(found, _headers(response), response.status)
    except TimeoutError as error:
        raise CannotFetch(f"it does not answer within {timeout:g} seconds") from error
    except (httpcore2.UnsupportedProtocol, ValueError) as error:
        raise CannotFetch("that is no URL which can be asked") from error
    except (httpcore2.NetworkError, httpcore2.ProtocolError, httpcore2.TimeoutException, OSError) as error:
        raise CannotFetch(f"it cannot be reached: {error or type(error).__name__}") from error


async def _read(response: httpcore2.Response, limit: int) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_stream():
        body += chunk
        if len(body) > limit:
            raise CannotFetch(f"it has more than {limit} bytes")
    return bytes(body)


def _headers(response: httpcore2.Response) -> dict[str, str]:
    """A header that comes twice counts as one list (RFC 9110, section 5.3)."""
    found: dict[str, str] = {}
    for name, value in response.headers:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        found[key] = f"{found[key]}, {text}" if key in found else text
    return found


def is_public(address: str) -> bool:
    """Whether `address` is one of the open internet."""
    ip = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address) and ip not in _GLOBAL_UNICAST:
        return False
    special = ip.is_multicast or ip.is_reserved or any(ip in network for network in _NOT_PUBLIC)
    return ip.is_global and not special


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
