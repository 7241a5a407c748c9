"""Any client, any upstream: real clients of every transport and era, real servers of every kind."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, get_args

import httpx2
import pytest
from mcp import MCPError
from mcp.client import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import CallToolResult, ElicitResult, TextContent

from libs.common.control.entries import Group, Processes, Server, ServerAccess
from tests.asgi import PLAIN
from tests.conftest import eventually
from tests.unit.gateway import stdio_made
from tests.unit.gateway.bridge_made import (
    ACCESS,
    APPS,
    Behind,
    ClientKind,
    another_replica,
    behind,
    by_hand,
    connected,
)
from tests.unit.gateway.conftest import PUBLIC_URL, House, token

CLIENTS = get_args(ClientKind)


def text_of(result: CallToolResult) -> str:
    content = result.content[0]
    assert isinstance(content, TextContent)
    return content.text


async def accept(context: Any, params: Any) -> ElicitResult:
    return ElicitResult(action="accept", content={"name": "Ada"})


@pytest.fixture(params=APPS)
async def server(house: House, request: pytest.FixtureRequest) -> AsyncIterator[Behind]:
    async with behind(house, request.param) as server:
        yield server


@pytest.mark.parametrize("kind", CLIENTS)
async def test_any_client_lists_calls_reads_and_is_asked(server: Behind, kind: ClientKind) -> None:
    seen: list[float] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        seen.append(progress)

    async with asyncio.timeout(30), connected(server, kind, elicitation_callback=accept) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert {"echo", "count"} <= names
        assert "located" not in names  # denied
        assert text_of(await client.call_tool("echo", {"text": "hello"})) == "hello"
        failed = await client.call_tool("fail", {})
        assert failed.is_error
        assert "on purpose" in text_of(failed)
        with pytest.raises(MCPError, match="your group may not use the tool"):
            await client.call_tool("located", {"region": "eu"})
        counted = await client.call_tool("count", {"to": 3}, progress_callback=on_progress)
        assert (text_of(counted), seen) == ("counted to 3", [1, 2, 3])
        assert text_of(await client.call_tool("ask", {})) == "you are Ada"
        assert (await client.read_resource("demo://greeting")).contents[0].model_dump()["text"] == "hello"
        prompt = await client.get_prompt("introduce", {"name": "Ada"})
        assert prompt.messages[0].content.model_dump()["text"] == "I am Ada"
    assert server.app.did == ["echo hello"]


@pytest.mark.parametrize("kind", CLIENTS)
async def test_a_call_that_is_cancelled_is_cancelled_upstream_and_recorded_so(
    server: Behind, kind: ClientKind
) -> None:
    async with asyncio.timeout(30), connected(server, kind) as client:
        call = asyncio.create_task(client.call_tool("slow", {}))
        await eventually(lambda: "slow began" in server.app.did)
        call.cancel()
        await eventually(lambda: "slow cancelled" in server.app.did)

        def statuses() -> list[str]:
            return [r["status"] for r in server.house.records() if r["method"] == "tools/call"]

        if is_bridged(server, kind):
            await eventually(lambda: statuses() == ["cancelled"])


def is_bridged(server: Behind, kind: ClientKind) -> bool:
    """Whether client and server differ in transport or era."""
    own = {"legacy-server": {"legacy", "auto"}, "modern-server": {"auto", "2026-07-28"}, "sse-server": set()}
    return kind == "sse" or kind not in own.get(server.server.slug, set(CLIENTS))


@asynccontextmanager
async def at(house: House, path: str, kind: ClientKind) -> AsyncIterator[Client]:
    """A client of the gateway as a whole."""
    headers = {"authorization": f"Bearer {token(audience=f'{PUBLIC_URL}/mcp')}"}
    if kind == "sse":
        transport: Any = sse_client(house.url + path + "/sse", headers=headers)
        async with Client(transport, mode="legacy", elicitation_callback=accept) as client:
            yield client
        return
    async with httpx2.AsyncClient(headers=headers, timeout=30, verify=PLAIN) as http:
        transport = streamable_http_client(house.url + path, http_client=http)
        async with Client(transport, mode=kind, elicitation_callback=accept) as client:
            yield client


@pytest.mark.parametrize("kind", CLIENTS)
async def test_one_url_offers_every_server_to_any_client(house: House, kind: ClientKind) -> None:
    async with behind(house, "legacy") as one, behind(house, "sse") as other, asyncio.timeout(30):
        access = {one.server.slug: ServerAccess(), other.server.slug: ACCESS}
        await house.put(Group(version=4, id="default", name="Everybody", servers=access))
        async with at(house, "/mcp", kind) as client:
            names = {tool.name for tool in (await client.list_tools()).tools}
            assert {"legacy-server__echo", "sse-server__echo", "legacy-server__located"} <= names
            assert "sse-server__located" not in names
            result = await client.call_tool("sse-server__echo", {"text": "hello"})
            assert text_of(result) == "hello"
            assert text_of(await client.call_tool("legacy-server__ask", {})) == "you are Ada"
    calls = [r for r in house.records() if r["method"] == "tools/call"]
    assert {(r["server"], r["tool"]) for r in calls} == {("sse-server", "echo"), ("legacy-server", "ask")}
    assert "" not in {r["server"] for r in house.records()}  # the outer request is no call of its own


async def test_a_token_for_one_server_is_not_good_for_all(house: House) -> None:
    message = house.message("initialize", {})
    headers = {"authorization": f"Bearer {token()}", "content-type": "application/json"}
    answer = await house.client.post(f"{house.url}/mcp", content=message, headers=headers)
    assert answer.status_code == 401
    metadata = "/.well-known/oauth-protected-resource/mcp"
    assert f'resource_metadata="{PUBLIC_URL}{metadata}"' in answer.headers["www-authenticate"]
    assert (await house.client.get(house.url + metadata)).json()["resource"] == f"{PUBLIC_URL}/mcp"


@pytest.mark.parametrize(
    ("kind", "era", "processes"),
    [
        *((kind, era, "shared") for kind in CLIENTS for era in ("legacy", "dual")),
        ("legacy", "legacy", "session"),
        ("2026-07-28", "legacy", "session"),
        ("legacy", "dual", "user"),
    ],
)
async def test_any_client_reaches_a_command(
    house: House, tmp_path: Path, kind: ClientKind, era: str, processes: Processes
) -> None:
    entry = Server(
        version=1,
        slug="command",
        name="Command",
        transport="stdio",
        command=stdio_made.real(era),
        environment=stdio_made.REAL,
        processes=processes,
    )
    await house.put(entry)
    found = Behind(house, entry, None)  # type: ignore[arg-type]
    await found.allow(ACCESS)
    async with (
        asyncio.timeout(60),
        another_replica(house, tmp_path / "commands", gateway_stdio="on") as (_, origin),
        connected(found, kind, at=origin) as client,
    ):
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert "echo" in names
        assert "located" not in names
        assert text_of(await client.call_tool("echo", {"text": "hello"})) == "hello"
        assert text_of(await client.call_tool("count", {"to": 2})) == "counted to 2"


async def test_a_command_ends_with_the_replica(house: House, tmp_path: Path) -> None:
    entry = Server(
        version=1,
        slug="command",
        name="Command",
        transport="stdio",
        command=stdio_made.real("legacy"),
        environment=stdio_made.REAL,
    )
    await house.put(entry)
    found = Behind(house, entry, None)  # type: ignore[arg-type]
    await found.allow(ACCESS)
    async with (
        another_replica(house, tmp_path / "commands", gateway_stdio="on") as (gateway, origin),
        by_hand(found, at=origin) as client,
    ):
        await client.begin()
        (instance,) = gateway.processes._instances.values()
        pid = instance.report(0).pid
        assert pid is not None
        assert stdio_made.alive(pid)
    assert not stdio_made.alive(pid)
