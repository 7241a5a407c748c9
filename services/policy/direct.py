"""Asks a server over Streamable HTTP what it offers, with the organization's credential and no gateway."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx2
import msgspec
from mcp import Client, MCPError
from mcp.client.streamable_http import streamable_http_client

from libs.common.bus import Bus, Refused
from libs.common.control.entries import ORGANIZATION, origin_of
from libs.common.errors import LockgateError, Unavailable
from libs.common.requests import (
    OPEN_CREDENTIAL,
    Injection,
    OpenCredential,
    SealedCredential,
    credential_context,
)
from libs.common.sealed import NotForUs, Opener
from services.policy.domain import Server
from services.policy.features import Features, beginning_of, told

PAGES = 50  # of a list; a server that never ends is not read for ever


class FeaturesUnknown(LockgateError):
    """The server did not tell what it offers; the detail says why in one sentence."""

    status, type, title = 502, "upstream-failed", "The server did not tell what it offers"


class Direct:
    """Reaches upstream servers; `timeout` in seconds for everything that one question takes."""

    def __init__(self, bus: Bus, timeout: float) -> None:
        self._bus, self._timeout = bus, timeout

    async def features(self, server: Server) -> Features:
        """What `server` lists now. Raises `FeaturesUnknown`."""
        headers = await self._headers(server)
        statuses: list[int] = []

        async def note_status(response: httpx2.Response) -> None:
            statuses.append(response.status_code)

        try:
            async with asyncio.timeout(self._timeout):
                return await _features(server.definition.url, headers, self._timeout, note_status)
        except Exception as error:
            cause = _cause(error)
            if headers and isinstance(cause, MCPError):  # its words may repeat the credential
                cause = MCPError(cause.code, f"code {cause.code}")
            raise FeaturesUnknown(_sentence(cause, statuses, self._timeout)) from None

    async def _headers(self, server: Server) -> dict[str, str]:
        if server.definition.auth != "api_key":
            return {}
        opener = Opener()
        query = OpenCredential(
            slug=server.slug,
            user=ORGANIZATION,
            public_key=opener.public_key,
            asker="policy",
            origin=origin_of(server.definition.url),
        )
        try:
            sealed = await self._bus.request(OPEN_CREDENTIAL, query, SealedCredential)
            context = credential_context(server.slug, ORGANIZATION, sealed.version)
            return msgspec.json.decode(opener.open(sealed.box, context), type=Injection).headers
        except Refused as error:
            raise FeaturesUnknown(f"It needs a credential: {error.detail}") from error
        except (Unavailable, NotForUs) as error:
            raise FeaturesUnknown("It needs a credential, and the vault does not answer.") from error


async def _features(
    url: str,
    headers: dict[str, str],
    timeout: float,
    on_response: Callable[[httpx2.Response], Awaitable[None]],
) -> Features:
    http = httpx2.AsyncClient(headers=headers, timeout=timeout, event_hooks={"response": [on_response]})
    async with http, Client(streamable_http_client(url, http_client=http)) as client:
        offers = client.server_capabilities
        resources: list[tuple[str, str | None]] = []
        if offers.resources:
            async for page in _pages(client.list_resources):
                resources += [(str(item.uri), item.description or item.name) for item in page.resources]
            async for listed in _pages(client.list_resource_templates):
                resources += [
                    (beginning_of(item.uri_template), f"{item.uri_template}: {item.description or item.name}")
                    for item in listed.resource_templates
                ]
        return Features(
            tools=told("tools", await _named(client.list_tools, "tools") if offers.tools else []),
            prompts=told("prompts", await _named(client.list_prompts, "prompts") if offers.prompts else []),
            resources=told("resources", resources),
        )


async def _named(ask: Callable[..., Awaitable[Any]], field: str) -> list[tuple[str, str | None]]:
    found: list[tuple[str, str | None]] = []
    async for page in _pages(ask):
        found += [(item.name, item.description) for item in getattr(page, field)]
    return found


async def _pages(ask: Callable[..., Awaitable[Any]]) -> AsyncIterator[Any]:
    """The pages of a list, as far as they are wanted."""
    cursor: str | None = None
    for _ in range(PAGES):
        page = await ask(cursor=cursor)
        yield page
        cursor = page.next_cursor
        if cursor is None:
            return


def _cause(error: BaseException) -> BaseException:
    """The first error inside the task groups through which it came."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _sentence(error: BaseException, statuses: list[int], timeout: float) -> str:
    """Why it failed, for people."""
    status = next((status for status in reversed(statuses) if status >= 400), None)
    match error:
        case TimeoutError() | httpx2.TimeoutException():
            return f"It did not answer within {timeout:g} seconds."
        case httpx2.HTTPError():
            return f"The connection to it failed: {error or type(error).__name__}."
        case _ if status in {401, 403}:
            return f"It answered with HTTP status {status}: it wants a credential, or refuses the one it got."
        case _ if status:
            return f"It answered with HTTP status {status}: is the path of its URL right?"
        case MCPError():
            return f"It answered with an MCP error: {error.message[:200]}."
        case _:
            return "What it answered is not MCP."
