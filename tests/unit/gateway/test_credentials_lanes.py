"""A token that the upstream refuses, in the bridged lane: what got the 401 is sent again, nothing else is."""

import itertools
import json
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from libs.common.control.entries import CredentialVersion, Group, Server, ServerAccess, origin_of
from libs.common.errors import Conflict, LockgateError
from libs.common.requests import (
    OPEN_CREDENTIAL,
    REFRESH_CREDENTIAL,
    Injection,
    OpenCredential,
    RefreshCredential,
    RefreshedCredential,
    SealedCredential,
    credential_context,
)
from libs.common.sealed import seal
from tests.unit.gateway.bridge_made import INITIALIZE
from tests.unit.gateway.conftest import PUBLIC_URL, Exchange, House, token
from tests.unit.gateway.links_made import META

SLUG = "bridged"
BEARER = token(audience=f"{PUBLIC_URL}/mcp/{SLUG}")
MODERN = {"mcp_protocol_version": "2026-07-28", "mcp_method": "tools/call", "mcp_name": "echo"}


class NeedsAttention(Conflict):
    type = "credential-attention"


class ProviderFailed(LockgateError):
    type = "provider-failed"


class Tokens:
    """A credentials service that has `token-<version>` for the organization."""

    def __init__(self, house: House) -> None:
        self._house = house
        self.version = 1
        self.fails: LockgateError | None = None
        self.refreshes: list[int] = []

    async def start(self) -> None:
        await self._house.bus.serve(OPEN_CREDENTIAL, OpenCredential, self.open)
        await self._house.bus.serve(REFRESH_CREDENTIAL, RefreshCredential, self.refresh)
        await self._house.bus.client.flush()
        await self.tell()

    async def tell(self) -> None:
        origin = origin_of(self._house.upstream.url)
        entry = CredentialVersion(version=self.version, slug=SLUG, user="organization", origin=origin)
        await self._house.put(entry)

    async def open(self, query: OpenCredential) -> SealedCredential:
        injection = Injection(headers={"Authorization": f"Bearer token-{self.version}"})
        context = credential_context(query.slug, query.user, self.version)
        box = seal(msgspec.json.encode(injection), query.public_key, context)
        return SealedCredential(version=self.version, box=box)

    async def refresh(self, query: RefreshCredential) -> RefreshedCredential:
        self.refreshes.append(query.version)
        if self.fails:
            raise self.fails
        if query.version == self.version:
            self.version += 1
            await self.tell()
        return RefreshedCredential(version=self.version)


class LegacyServer:
    """Of 2025-11-25, by hand: takes `good` tokens, and breaks off each call, whose rest is fetched by GET."""

    def __init__(self) -> None:
        self.good = {"token-1"}
        self.ran: list[Any] = []
        self.on_call: Callable[[], None] = lambda: None

    async def __call__(self, exchange: Exchange) -> None:
        if exchange.headers.get("authorization", "").removeprefix("Bearer ") not in self.good:
            await exchange.answer(b"{}", 401)
        elif exchange.headers.get("mcp-protocol-version") == "2026-07-28":
            await exchange.answer(b"no such version", 400)
        elif exchange.method == "GET":
            await self._get(exchange)
        elif exchange.method == "DELETE":
            await exchange.answer(b"{}")
        else:
            await self._post(exchange, exchange.message)

    async def _get(self, exchange: Exchange) -> None:
        if exchange.headers.get("last-event-id") != "e1":
            await exchange.answer(b"{}", 405)
            return
        answer = {"jsonrpc": "2.0", "id": self.ran[-1], "result": {"content": []}}
        await exchange.open_stream()
        await exchange.event(b"id: e2\ndata: " + json.dumps(answer).encode() + b"\n\n", last=True)

    async def _post(self, exchange: Exchange, message: dict[str, Any]) -> None:
        if "id" not in message:
            await exchange.answer(b"", 202)
        elif message["method"] == "initialize":
            info = {"name": "legacy", "version": "1"}
            result = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": info}
            await exchange.result(result, mcp_session_id="s1")
        else:
            self.ran.append(message["id"])
            self.on_call()
            await exchange.open_stream()
            await exchange.event(b"id: e1\nretry: 10\ndata: \n\n", last=True)


@pytest.fixture
async def tokens(house: House) -> Tokens:
    tokens = Tokens(house)
    await tokens.start()
    return tokens


@pytest.fixture
async def server(house: House, tokens: Tokens) -> LegacyServer:
    """Behind the gateway, where modern clients reach it through the bridge."""
    server = LegacyServer()
    house.upstream.script = server
    url = house.upstream.url
    access = {SLUG: ServerAccess()}
    await house.put(
        Server(version=1, slug=SLUG, name="Bridged", url=url, auth="oauth", bridge="always"),
        Group(version=2, id="default", name="Everybody", servers=access),
    )
    house.gateway.eras.saw(SLUG, url, {"modern": False, "legacy": True})
    return server


Ask = Callable[[], Awaitable[Any]]


async def _by_request(house: House) -> Ask:
    """A client of 2026-07-28."""

    async def ask() -> Any:
        params = {"name": "echo", "arguments": {}, "_meta": META}
        return (await house.post(house.message("tools/call", params), BEARER, SLUG, **MODERN)).json()

    return ask


async def _in_session(house: House) -> Ask:
    """A client of 2025-11-25, which has begun its session."""
    begun = await house.post(house.message("initialize", INITIALIZE, id=0), BEARER, SLUG)
    session = {"mcp_session_id": begun.headers["mcp-session-id"]}
    ids = itertools.count(1)

    async def ask() -> Any:
        body = house.message("tools/call", {"name": "echo", "arguments": {}}, id=next(ids))
        return (await house.post(body, BEARER, SLUG, **session)).json()

    return ask


@pytest.fixture(params=[_by_request, _in_session], ids=["modern client", "legacy client"])
async def ask(request: pytest.FixtureRequest, house: House, server: LegacyServer) -> Ask:
    """A call by a client of the one or the other era."""
    asking: Ask = await request.param(house)
    return asking


async def test_a_refused_token_is_renewed_once_and_the_call_runs_once(
    tokens: Tokens, server: LegacyServer, ask: Ask
) -> None:
    assert "result" in await ask()
    server.good = {"token-2"}
    assert "result" in await ask()
    assert len(server.ran) == 2
    assert tokens.refreshes == [1]


async def test_a_call_that_runs_is_not_run_again_when_its_stream_needs_a_new_token(
    tokens: Tokens, server: LegacyServer, ask: Ask
) -> None:
    server.on_call = lambda: server.good.symmetric_difference_update({"token-1", "token-2"})
    assert "result" in await ask()
    assert len(server.ran) == 1
    assert tokens.refreshes == [1]


async def test_what_it_speaks_is_found_out_with_a_new_token(
    house: House, tokens: Tokens, server: LegacyServer
) -> None:
    server.good = {"token-2"}
    ask = await _in_session(house)
    assert "result" in await ask()
    assert tokens.refreshes == [1]


@pytest.mark.parametrize(
    ("fails", "reason", "link"),
    [
        (NeedsAttention(), "credential_attention", True),
        (ProviderFailed(), "credential_unavailable", False),
    ],
)
async def test_why_there_is_no_new_token_is_told_and_nothing_runs(
    tokens: Tokens, server: LegacyServer, ask: Ask, fails: LockgateError, reason: str, link: bool
) -> None:
    server.good, tokens.fails = {"token-2"}, fails
    error = (await ask())["error"]
    assert error["data"]["reason"] == reason
    assert ("url" in error["data"]) == link
    assert not server.ran


async def test_a_token_that_is_refused_again_is_not_renewed_again(
    tokens: Tokens, server: LegacyServer, ask: Ask
) -> None:
    server.good = set()
    assert (await ask())["error"]["data"]["reason"] == "upstream_unauthorized"
    assert len(tokens.refreshes) == 1
