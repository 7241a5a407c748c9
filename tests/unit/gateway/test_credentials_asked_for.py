"""Whoever lacks a credential is brought to the page where they connect it; the same call succeeds then."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx2
import msgspec
import pytest
from mcp import MCPError
from mcp.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import UrlElicitationRequiredError
from mcp_types import CallToolResult, ElicitRequestURLParams, ElicitResult, TextContent

from libs.common.control.entries import CredentialVersion, destination_of, key_of
from libs.common.control.follower import SUBJECT
from libs.common.requests import (
    OPEN_CREDENTIAL,
    Injection,
    OpenCredential,
    SealedCredential,
    credential_context,
)
from libs.common.sealed import seal
from services.gateway import elicitation
from services.gateway.sessions import Sessions, opens_urls
from tests.asgi import PLAIN
from tests.conftest import eventually
from tests.unit.gateway.bridge_made import Behind, ClientKind, behind, connected
from tests.unit.gateway.conftest import PUBLIC_URL, House, token

# How the client speaks, and the server: in both lanes.
LEGACY: list[tuple[ClientKind, str]] = [("legacy", "both"), ("legacy", "modern")]
MODERN: list[tuple[ClientKind, str]] = [("2026-07-28", "both"), ("2026-07-28", "legacy"), ("auto", "modern")]


class Account:
    """Alice's account at a server, as she sees to it on its page."""

    def __init__(self, behind: Behind) -> None:
        self._behind, self._version = behind, 0

    async def start(self) -> None:
        bus = self._behind.house.bus
        await bus.serve(OPEN_CREDENTIAL, OpenCredential, self._open)
        await bus.client.flush()

    @property
    def page(self) -> str:
        return f"{PUBLIC_URL}/credentials/servers/{self._behind.server.slug}"

    async def connect(self, *, attention: bool = False) -> None:
        self._version += 1
        await self._behind.house.put(self._entry(attention))

    async def disconnect(self) -> None:
        house, entry = self._behind.house, self._entry(False)
        ack = await house.bus.js.publish(SUBJECT + key_of(entry), b"", headers={"KV-Operation": "DEL"})
        await house.gateway.follower.wait_for(lambda: house.gateway.follower.applied >= ack.seq, 5)

    def _entry(self, attention: bool) -> CredentialVersion:
        server = self._behind.server
        return CredentialVersion(
            version=self._version,
            slug=server.slug,
            user="alice",
            origin=destination_of(server),
            attention=attention,
        )

    async def _open(self, query: OpenCredential) -> SealedCredential:
        secret = msgspec.json.encode(Injection(headers={"X-Api-Key": f"secret-of-alice-{self._version}"}))
        context = credential_context(query.slug, query.user, self._version)
        return SealedCredential(version=self._version, box=seal(secret, query.public_key, context))


@asynccontextmanager
async def served(house: House, kind: str) -> AsyncIterator[tuple[Behind, Account]]:
    async with behind(house, kind, auth="api_key") as server:
        account = Account(server)
        await account.start()
        await account.connect()
        yield server, account


@asynccontextmanager
async def at_large(behind: Behind, kind: ClientKind, **options: Any) -> AsyncIterator[Client]:
    """A client of the gateway as a whole."""
    headers = {"authorization": f"Bearer {token(audience=f'{PUBLIC_URL}/mcp')}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=30, verify=PLAIN) as http,
        Client(
            streamable_http_client(f"{behind.house.url}/mcp", http_client=http), mode=kind, **options
        ) as client,
    ):
        yield client


async def echo(client: Client, tool: str = "echo") -> str:
    result = await client.call_tool(tool, {"text": "hello"})
    assert isinstance(result, CallToolResult)
    (content,) = result.content
    assert isinstance(content, TextContent)
    return content.text


class Browser:
    """What a client does about a question: opens the page, where `does` happens."""

    def __init__(self, does: Any, action: str = "accept") -> None:
        self._does, self._action = does, action
        self.opened: list[ElicitRequestURLParams] = []

    async def __call__(self, _: Any, params: Any) -> ElicitResult:
        assert isinstance(params, ElicitRequestURLParams)
        self.opened.append(params)
        if self._does:
            await self._does()
        return ElicitResult(action=self._action)


async def nobody(_: Any, __: Any) -> ElicitResult:
    raise AssertionError("it is told by an error, not asked")


@pytest.mark.parametrize(("client_kind", "kind"), MODERN)
async def test_a_modern_client_opens_the_page_and_its_call_goes_on(
    house: House, client_kind: ClientKind, kind: str
) -> None:
    async with AsyncExitStack() as stack:
        server, account = await stack.enter_async_context(served(house, kind))
        browser = Browser(account.connect)
        client = await stack.enter_async_context(connected(server, client_kind, elicitation_callback=browser))
        assert await echo(client) == "hello"
        await account.disconnect()
        assert await echo(client) == "hello"
        (asked,) = browser.opened
        assert asked.url == account.page
        assert account.page not in asked.message


@pytest.mark.parametrize(("client_kind", "kind"), LEGACY)
async def test_a_legacy_client_is_told_the_page_and_the_same_call_succeeds(
    house: House, client_kind: ClientKind, kind: str
) -> None:
    async with AsyncExitStack() as stack:
        server, account = await stack.enter_async_context(served(house, kind))
        client = await stack.enter_async_context(connected(server, client_kind, elicitation_callback=nobody))
        assert await echo(client) == "hello"
        await account.connect(attention=True)
        with pytest.raises(MCPError) as caught:
            await echo(client)
        (asked,) = UrlElicitationRequiredError.from_error(caught.value.error).elicitations
        assert (asked.mode, asked.url) == ("url", account.page)
        assert asked.elicitation_id
        assert caught.value.error.data["reason"] == "credential_attention"
        await account.connect()
        if kind == "modern":  # a session of our own ends with the credential for which it was begun
            client = await stack.enter_async_context(connected(server, client_kind))
        assert await echo(client) == "hello"


@pytest.mark.parametrize(("client_kind", "kind"), [*MODERN, *LEGACY])
async def test_a_client_that_opens_no_pages_gets_the_link_in_an_error(
    house: House, client_kind: ClientKind, kind: str
) -> None:
    async with AsyncExitStack() as stack:
        server, account = await stack.enter_async_context(served(house, kind))
        client = await stack.enter_async_context(connected(server, client_kind))
        await account.disconnect()
        with pytest.raises(MCPError) as caught:
            await echo(client)
        error = caught.value.error
        assert (error.code, error.data["reason"]) == (-31428, "credential_missing")
        assert error.data["url"] == account.page
        assert account.page in error.message


@pytest.mark.parametrize(
    ("client_kind", "path"), [("2026-07-28", ""), ("2026-07-28", "mcp"), ("legacy", "mcp")]
)
async def test_a_call_waits_for_whoever_is_still_at_it_and_asks_once(
    house: House, client_kind: ClientKind, path: str
) -> None:
    """Also a legacy client of the gateway as a whole, which puts the question to it."""
    async with AsyncExitStack() as stack:
        server, account = await stack.enter_async_context(served(house, "both"))
        await account.disconnect()
        browser = Browser(None)
        options: dict[str, Any] = {"elicitation_callback": browser}
        if path:
            client = await stack.enter_async_context(at_large(server, client_kind, **options))
        else:
            client = await stack.enter_async_context(connected(server, client_kind, **options))
        tool = f"{server.server.slug}__echo" if path else "echo"
        call = asyncio.create_task(echo(client, tool))
        arriving = house.gateway.running._arriving
        await eventually(lambda: arriving["alice"] == 1)
        assert not call.done()
        await account.connect()
        assert await call == "hello"
        assert len(browser.opened) == 1
        assert not arriving


async def test_who_does_not_come_to_an_end_is_asked_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elicitation, "WITHIN", 0.05)
    async with AsyncExitStack() as stack:
        server, account = await stack.enter_async_context(served(house, "both"))
        await account.disconnect()

        async def third_time_lucky() -> None:
            if len(browser.opened) == 3:
                await account.connect()

        browser = Browser(third_time_lucky)
        client = await stack.enter_async_context(
            connected(server, "2026-07-28", elicitation_callback=browser)
        )
        assert await echo(client) == "hello"
        assert len(browser.opened) == 3


@pytest.mark.parametrize("action", ["decline", "cancel"])
async def test_whoever_declines_is_not_asked_again_in_the_same_call(house: House, action: str) -> None:
    async with AsyncExitStack() as stack:
        server, account = await stack.enter_async_context(served(house, "both"))
        browser = Browser(None, action)
        client = await stack.enter_async_context(
            connected(server, "2026-07-28", elicitation_callback=browser)
        )
        await account.disconnect()
        with pytest.raises(MCPError) as caught:
            await echo(client)
        assert caught.value.error.data["reason"] == "credential_missing"
        assert len(browser.opened) == 1


async def test_a_list_is_no_place_for_questions(house: House) -> None:
    async with AsyncExitStack() as stack:
        server, account = await stack.enter_async_context(served(house, "both"))
        client = await stack.enter_async_context(connected(server, "2026-07-28", elicitation_callback=nobody))
        await account.disconnect()
        with pytest.raises(MCPError) as caught:
            await client.list_tools()
        assert caught.value.error.data["url"] == account.page


async def test_a_client_can_be_told_the_page_when_it_begins(house: House) -> None:
    async with served(house, "both") as (server, account):
        await account.disconnect()
        with pytest.RaisesGroup(MCPError, flatten_subgroups=True, allow_unwrapped=True) as caught:
            async with connected(server, "legacy", elicitation_callback=nobody):
                pass
        error: Any = caught.value
        while isinstance(error, BaseExceptionGroup):
            (error,) = error.exceptions
        (asked,) = UrlElicitationRequiredError.from_error(error.error).elicitations
        assert asked.url == account.page


def test_what_a_session_id_says_of_its_client_is_not_the_callers_to_change() -> None:
    sessions = Sessions(b"k" * 32)
    plain, marked = (sessions.wrap(b"s.1", "demo", "alice", opens_urls=can) for can in (False, True))
    assert (opens_urls(plain), opens_urls(marked)) == (False, True)
    assert sessions.unwrap(plain, "demo", "alice") == sessions.unwrap(marked, "demo", "alice") == b"s.1"
    body, _, mac = plain.rpartition(b".")
    for forged in (body + b".u" + mac, marked.replace(b".u", b"."), body + b".x" + mac):
        assert sessions.unwrap(forged, "demo", "alice") is None
