"""Sessions live in one replica and are reached through every other, over a real NATS server."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from services.gateway.app import Gateway
from services.gateway.bridge import relaying
from tests.conftest import eventually, free_port
from tests.unit.gateway import replica_process
from tests.unit.gateway.bridge_made import (
    INITIALIZE,
    Behind,
    ByHand,
    Events,
    another_replica,
    behind,
    by_hand,
)
from tests.unit.gateway.conftest import House


@pytest.fixture
async def server(house: House) -> AsyncIterator[Behind]:
    async with behind(house, "sse") as server:
        yield server


@pytest.fixture
async def other(house: House, tmp_path: Path) -> AsyncIterator[tuple[Gateway, str]]:
    async with another_replica(house, tmp_path / "other") as other:
        yield other


@pytest.fixture
async def begun(server: Behind, other: tuple[Gateway, str]) -> AsyncIterator[ByHand]:
    """A client whose session lives in the first replica and that talks to the other one now."""
    async with by_hand(server) as client:
        await client.begin()
        client.origin = other[1]
        yield client


async def test_a_request_at_another_replica_is_answered_by_the_owner(
    begun: ByHand, server: Behind, other: tuple[Gateway, str]
) -> None:
    answer = await begun.call("echo", {"text": "hello"})
    assert answer.json()["result"]["content"][0]["text"] == "hello"
    records = server.house.records()  # the owner decided, and has the record
    assert [r["method"] for r in records] == ["initialize", "notifications/initialized", "tools/call"]
    assert {r["user"] for r in records} == {"alice"}


async def test_events_come_in_order_through_another_replica(begun: ByHand) -> None:
    call = {"name": "count", "arguments": {"to": 20}, "_meta": {"progressToken": "p"}}
    body = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": call}
    async with begun.stream("POST", body) as events:
        seen = [await events.message() for _ in range(21)]
    assert [m["params"]["progress"] for m in seen[:-1]] == list(range(1, 21))
    assert seen[-1]["id"] == 7


async def test_large_messages_cross_in_pieces(begun: ByHand, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relaying, "PIECE", 4096)
    text = "".join(map(str, range(10_000)))
    answer = await begun.call("echo", {"text": text})
    assert answer.json()["result"]["content"][0]["text"] == text


async def test_the_stream_of_a_session_is_read_through_another_replica(begun: ByHand) -> None:
    async with begun.stream() as events:
        # With two requests open it is not known to which of them a message would belong.
        slow = asyncio.create_task(begun.call("slow", {"seconds": 1}, id=2))
        await eventually(lambda: "slow began" in begun.behind.app.did)
        assert (await begun.call("announce")).status_code == 200
        async with asyncio.timeout(10):
            told = await events.message()
        await slow
    assert told["method"] == "notifications/tools/list_changed"


async def test_a_session_is_ended_through_another_replica(begun: ByHand) -> None:
    given = begun.headers | begun.session
    assert (await begun.http.delete(begun.url, headers=given)).status_code == 200
    assert (await begun.call("echo", {"text": "late"})).status_code == 404


async def test_a_client_that_leaves_another_replica_is_noticed_by_the_owner(
    begun: ByHand, house: House
) -> None:
    session = house.gateway.bridge.gate.host.register.all()[0]
    async with begun.stream():
        await eventually(lambda: session.idle_since is None)
    await eventually(lambda: session.idle_since is not None)


async def test_an_sse_session_is_reached_by_posts_to_another_replica(
    server: Behind, other: tuple[Gateway, str]
) -> None:
    async with by_hand(server) as client:
        first_url = client.url
        async with client.http.stream("GET", first_url + "/sse", headers=client.headers) as response:
            events = Events(response)
            endpoint = (await events.next())["data"]
            posted = await client.http.post(
                other[1] + endpoint,
                json={"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": INITIALIZE},
                headers=client.headers,
            )
            assert posted.status_code == 202
            assert (await events.message())["result"]["serverInfo"]["name"] == "everything"


async def test_a_user_who_is_asked_may_answer_at_another_replica(
    house: House, other: tuple[Gateway, str]
) -> None:
    """The call is held where it was made; the retry names it (2026-07-28, basic/patterns/mrtr)."""
    async with behind(house, "legacy") as server, by_hand(server) as client:
        first = await modern_call(client, "ask", {})
        result = first.json()["result"]
        assert result["resultType"] == "input_required"
        client.origin = other[1]
        (key,) = result["inputRequests"]
        retry = {
            "requestState": result["requestState"],
            "inputResponses": {key: {"action": "accept", "content": {"name": "Ada"}}},
        }
        second = await modern_call(client, "ask", retry)
    assert second.json()["result"]["content"][0]["text"] == "you are Ada"


async def test_a_session_of_a_replica_that_stopped_is_unknown_at_once(server: Behind, tmp_path: Path) -> None:
    async with by_hand(server) as client:
        async with another_replica(server.house, tmp_path / "short") as (_, origin):
            client.origin = origin
            await client.begin()
        client.origin = server.house.url
        await eventually(lambda: len(server.house.gateway.follower.tables.replicas) == 1)
        async with asyncio.timeout(1):
            answer = await client.call("echo", {"text": "x"})
    assert answer.status_code == 404
    assert answer.json()["error"]["data"]["reason"] == "session_foreign"


async def test_the_death_of_the_owner_ends_its_streams_and_its_sessions_are_unknown(
    server: Behind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relaying, "SILENCE", 6.0)  # a living owner says something every four seconds
    house, port = server.house, free_port()
    settings = house.gateway.settings.model_copy(update={"data_dir": tmp_path / "owner"})
    owner = replica_process._start(settings, port)
    try:
        await eventually(lambda: len(house.gateway.follower.tables.replicas) == 2, within=30)
        async with by_hand(server, at=f"http://127.0.0.1:{port}") as client:
            await eventually_begun(client)
            client.origin = house.url
            async with client.stream() as events:
                owner.kill()
                async with asyncio.timeout(10):
                    with pytest.raises((StopAsyncIteration, httpx2.RemoteProtocolError)):
                        await events.next()
            async with asyncio.timeout(1):
                answer = await client.call("echo", {"text": "x"})
            assert answer.status_code == 404
    finally:
        owner.kill()
        owner.wait()


async def eventually_begun(client: ByHand) -> None:
    """Begin a session with a replica that has just written its first heartbeat."""
    async with asyncio.timeout(20):
        while True:
            answer = await client.request("server/discover")
            if answer.status_code != 503:
                break
            await asyncio.sleep(0.05)
    await client.begin()


async def test_what_crosses_holds_no_token(begun: ByHand, house: House) -> None:
    seen: list[bytes] = []

    async def keep(message: Any) -> None:
        seen.append(message.data)

    await house.bus.client.subscribe(">", cb=keep)
    await house.bus.client.flush()
    await begun.call("echo", {"text": "hello"})
    await eventually(lambda: any(b"tools/call" in data for data in seen))
    token = begun.headers["authorization"].removeprefix("Bearer ")
    assert not any(token.encode() in data for data in seen)


async def modern_call(client: ByHand, tool: str, more: dict[str, Any]) -> Any:
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}},
    }
    params = {"name": tool, "arguments": {}, "_meta": meta} | more
    return await client.post(
        {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params},
        mcp_method="tools/call",
        mcp_name=tool,
        mcp_protocol_version="2026-07-28",
    )
