"""Real servers behind the gateway, and clients of every transport and era in front of it."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import httpx2
from mcp.client import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from libs.common.control.entries import Group, Server, ServerAccess, Transport
from services.gateway.app import Gateway, create_app
from tests.asgi import PLAIN, serve
from tests.conftest import eventually, free_port
from tests.unit.gateway import mcp_servers
from tests.unit.gateway.conftest import PUBLIC_URL, House, token

APPS = {
    "legacy": mcp_servers.legacy_app,
    "modern": mcp_servers.modern_only_app,
    "both": mcp_servers.modern_and_legacy_app,
    "sse": mcp_servers.sse_app,
}
# As mcp's `Client` calls them, and that of the old transport.
ClientKind = Literal["sse", "legacy", "auto", "2026-07-28"]
ACCESS = ServerAccess(tools={"located": "deny"}, prompts={}, resources={})


@dataclass
class Behind:
    """A server behind the gateway, and the app that it is."""

    house: House
    server: Server
    app: mcp_servers.App

    @property
    def url(self) -> str:
        return f"{self.house.url}/mcp/{self.server.slug}"

    def bearer(self, user: str = "alice", **claims: Any) -> dict[str, str]:
        audience = f"{PUBLIC_URL}/mcp/{self.server.slug}"
        return {"authorization": f"Bearer {token(user, audience, **claims)}"}

    async def allow(self, access: ServerAccess | None) -> None:
        """Everybody's group may use `access` of the server; None for nothing."""
        servers = {self.server.slug: access} if access else {}
        await self.house.put(Group(version=3, id="default", name="Everybody", servers=servers))


@asynccontextmanager
async def behind(house: House, kind: str, **fields: Any) -> AsyncIterator[Behind]:
    """A server of `kind`, running and registered."""
    app = APPS[kind]()
    transport: Transport = "sse" if kind == "sse" else "streamable_http"
    async with mcp_servers.served(app) as origin:
        url = origin + ("/sse" if kind == "sse" else "/mcp")
        server = Server(
            version=1, slug=f"{kind}-server", name=kind.title(), url=url, transport=transport, **fields
        )
        found = Behind(house, server, app)
        await house.put(server)
        await found.allow(ACCESS)
        yield found


@asynccontextmanager
async def connected(behind: Behind, kind: ClientKind, at: str = "", **options: Any) -> AsyncIterator[Client]:
    """A client of `kind`, at the replica `at` (its origin), by default at the house's."""
    url = f"{at}/mcp/{behind.server.slug}" if at else behind.url
    if kind == "sse":
        transport: Any = sse_client(url + "/sse", headers=behind.bearer())
        async with Client(transport, mode="legacy", **options) as client:
            yield client
        return
    async with (
        httpx2.AsyncClient(headers=behind.bearer(), timeout=30, verify=PLAIN) as http,
        Client(streamable_http_client(url, http_client=http), mode=kind, **options) as client,
    ):
        yield client


@asynccontextmanager
async def another_replica(
    house: House, directory: Path, **settings: Any
) -> AsyncIterator[tuple[Gateway, str]]:
    """A second replica of the same gateway, and its origin."""
    changed = {"data_dir": directory, **settings}
    gateway, port = create_app(house.gateway.settings.model_copy(update=changed)), free_port()
    async with AsyncExitStack() as stack:
        await serve(gateway, port, stack)
        await eventually(lambda: gateway.fresh)
        tables = [one.follower.tables for one in (house.gateway, gateway)]
        await eventually(lambda: all(len(table.replicas) == 2 for table in tables))  # they know each other
        yield gateway, f"http://127.0.0.1:{port}"


@dataclass
class Events:
    """The events of an open stream, read by hand."""

    response: httpx2.Response
    _held: str = ""
    _chunks: AsyncIterator[str] = field(init=False)

    def __post_init__(self) -> None:
        self._chunks = self.response.aiter_text()

    async def next(self) -> dict[str, str]:
        """The next event that is no comment."""
        while True:
            while "\n\n" not in self._held:
                self._held += await anext(self._chunks)
            raw, _, self._held = self._held.partition("\n\n")
            fields = dict(line.split(": ", 1) for line in raw.split("\n") if not line.startswith(":"))
            if fields:
                return fields

    async def message(self) -> Any:
        return json.loads((await self.next())["data"])


INITIALIZE = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "by hand", "version": "1"},
}


@dataclass
class ByHand:
    """A client of Streamable HTTP with sessions that does what the test says."""

    behind: Behind
    http: httpx2.AsyncClient
    origin: str
    headers: dict[str, str]
    session: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"{self.origin}/mcp/{self.behind.server.slug}"

    async def post(self, message: Any, **headers: str) -> httpx2.Response:
        given = self.headers | self.session | {k.replace("_", "-"): v for k, v in headers.items()}
        content = message if isinstance(message, bytes) else json.dumps(message).encode()
        given |= {"content-type": "application/json", "accept": "application/json, text/event-stream"}
        return await self.http.post(self.url, content=content, headers=given)

    async def request(self, method: str, params: Any = None, id: Any = 1) -> httpx2.Response:
        return await self.post({"jsonrpc": "2.0", "id": id, "method": method, "params": params or {}})

    async def notify(self, method: str, params: Any = None) -> httpx2.Response:
        return await self.post({"jsonrpc": "2.0", "method": method, "params": params or {}})

    async def begin(self) -> None:
        answer = await self.request("initialize", INITIALIZE, id=0)
        assert answer.status_code == 200, answer.text
        self.session = {"mcp-session-id": answer.headers["mcp-session-id"]}
        assert (await self.notify("notifications/initialized")).status_code == 202

    async def call(self, tool: str, arguments: Any = None, id: Any = 1) -> httpx2.Response:
        return await self.request("tools/call", {"name": tool, "arguments": arguments or {}}, id)

    @asynccontextmanager
    async def stream(self, method: str = "GET", body: Any = None, **headers: str) -> AsyncIterator[Events]:
        given = self.headers | self.session | {k.replace("_", "-"): v for k, v in headers.items()}
        given["accept"] = "application/json, text/event-stream"
        if body is not None:
            given["content-type"] = "application/json"
        content = None if body is None else json.dumps(body).encode()
        async with self.http.stream(method, self.url, headers=given, content=content) as response:
            assert response.status_code == 200
            yield Events(response)


@asynccontextmanager
async def by_hand(behind: Behind, user: str = "alice", at: str = "") -> AsyncIterator[ByHand]:
    async with httpx2.AsyncClient(timeout=20, verify=PLAIN) as http:
        yield ByHand(behind, http, at or behind.house.url, behind.bearer(user))
