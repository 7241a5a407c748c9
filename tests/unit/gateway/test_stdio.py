"""Messages on lines, and real MCP servers over stdio."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.gateway.connection import UpstreamFailed
from services.gateway.links.port import Endpoint, always
from services.gateway.links.stdio import line_of, messages_of
from services.gateway.messages import NotAMessage
from tests.conftest import eventually
from tests.unit.gateway.links_made import Talk, modern, request, text
from tests.unit.gateway.stdio_made import REAL, World, by_hand, real, world


@pytest.fixture
async def at(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path) as made:
        yield made


async def talk(at: World, user: str = "alice") -> Talk:
    """A session, not yet started."""
    reached = await at.reach(user)
    assert reached.era == "legacy" and reached.open
    return Talk().open(reached.open)


async def endpoint(at: World) -> Endpoint:
    reached = await at.reach(client="modern")
    assert reached.era == "modern" and reached.endpoint
    return reached.endpoint


# -- lines ----------------------------------------------------------------------------------------


def test_white_space_between_tokens_may_be_a_line_break_and_goes_as_a_space() -> None:
    pretty = b'{\r\n  "method": "a\\nb",\n  "id": 1180591620717411303424\n}'
    assert line_of(pretty) == b'{    "method": "a\\nb",   "id": 1180591620717411303424 }'
    assert json.loads(line_of(pretty)) == json.loads(pretty)


def test_a_line_holds_one_message_none_or_a_batch() -> None:
    assert messages_of(b'{"id":1}\r') == [b'{"id":1}']
    assert messages_of(b"  \t") == []
    assert messages_of(b'[{"id":1}, {"id":2}]') == [b'{"id":1}', b'{"id":2}']
    with pytest.raises(NotAMessage):
        messages_of(b'[{"id":1}')


async def test_a_message_over_several_lines_arrives_as_one(at: World) -> None:
    at.put(by_hand(), processes="session")
    session = await talk(at)
    await session.begin()
    await session.say(
        json.dumps({"jsonrpc": "2.0", "id": 5, "method": "echo", "params": {"a": 1}}, indent=2).encode()
    )
    assert (await session.answer(5))["result"] == {"echo": {"a": 1}}
    await session.session.close()


async def test_what_is_no_message_is_kept_for_the_administrator(at: World) -> None:
    at.put(by_hand(), processes="session")
    session = await talk(at)
    await session.begin()
    await session.say(request(5, "garbage"))
    assert (await session.answer(5))["result"] == {}
    assert at.errors() == [
        "[no message] Server listening on stdio...",
        "[no message] {not json}",
        "[no message] [1, 2]",
    ]
    await session.session.close()


async def test_a_batch_is_taken_apart(at: World) -> None:
    at.put(by_hand(), processes="session")
    session = await talk(at)
    await session.begin()
    await session.say(request(5, "batch"))
    assert (await session.answer(5))["result"] == {"in": "a batch"}
    assert len(session.of("notifications/tools/list_changed")) == 1
    await session.session.close()


# -- a session with a process to itself -----------------------------------------------------------


async def test_a_session_of_its_own_carries_what_the_server_asks_the_client(at: World) -> None:
    at.put(real("legacy"), environment=REAL, processes="session")
    session = await talk(at)
    result = await session.begin()
    assert result["serverInfo"]["name"] == "everything"
    id = await session.begin_call("ask")
    await eventually(lambda: session.of("elicitation/create"))
    [question] = session.of("elicitation/create")
    answer = {"action": "accept", "content": {"name": "Ada"}}
    await session.say(json.dumps({"jsonrpc": "2.0", "id": question["id"], "result": answer}).encode())
    assert text((await session.answer(id))["result"]) == "you are Ada"
    await session.session.close()


async def test_each_session_has_its_own_process_which_ends_with_it(at: World) -> None:
    at.put(by_hand(), processes="session")
    one, other = await talk(at), await talk(at)
    await one.begin()
    await other.begin()
    assert len(at.running()) == 2
    await one.session.close()
    assert len(at.running()) == 1 and one.closed == []
    await other.say(request(5, "ping"))
    await other.answer(5)
    await other.session.close()
    assert at.running() == []


async def test_the_handshake_of_such_a_session_is_the_clients_own(at: World) -> None:
    at.put(by_hand(), processes="session")
    session = await talk(at)
    result = await session.begin()
    assert result["asked"]["clientInfo"] == {"name": "test", "version": "1"}
    assert result["x-unknown"] == 2**70
    await session.session.close()


async def test_a_client_of_each_era_gets_its_own_of_a_server_of_both(at: World) -> None:
    at.put(real("dual"), environment=REAL, processes="session")
    assert (await at.reach(client="legacy")).era == "legacy"
    assert (await at.reach(client="modern")).era == "modern"


# -- the modern era -------------------------------------------------------------------------------


async def test_a_modern_server_answers_requests_with_progress(at: World) -> None:
    at.put(real("dual"), environment=REAL)
    server = await endpoint(at)
    told: list[bytes] = []
    call = modern("one", "tools/call", name="count", arguments={"to": 3}, _meta={"progressToken": "mine"})
    answer = json.loads(await server.request(call, told.append, always))
    assert answer["id"] == "one" and text(answer["result"]) == "counted to 3"
    progress = [json.loads(raw)["params"] for raw in told]
    assert [(p["progressToken"], p["progress"]) for p in progress] == [("mine", 1), ("mine", 2), ("mine", 3)]


async def test_a_real_subscription_comes_under_the_id_of_its_request(at: World) -> None:
    at.put(real("dual"), environment=REAL)
    server = await endpoint(at)
    told: list[bytes] = []
    listen = modern("sub", "subscriptions/listen", notifications={"toolsListChanged": True})
    listening = asyncio.create_task(server.request(listen, told.append, always))
    await eventually(lambda: told)
    await server.request(modern(2, "tools/call", name="announce", arguments={}), told.append, always)
    await eventually(lambda: len(told) == 2)
    methods = [json.loads(raw)["method"] for raw in told]
    assert methods == ["notifications/subscriptions/acknowledged", "notifications/tools/list_changed"]
    ids = [json.loads(raw)["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"] for raw in told]
    assert ids == ["sub", "sub"]
    listening.cancel()


async def test_the_log_of_the_only_call_that_asked_for_it_reaches_its_caller(at: World) -> None:
    at.put(real("dual"), environment=REAL)
    server = await endpoint(at)
    told: list[bytes] = []
    meta = {"io.modelcontextprotocol/logLevel": "debug"}
    call = modern(1, "tools/call", name="log", arguments={"text": "hello"}, _meta=meta)
    await server.request(call, told.append, always)
    assert [json.loads(raw)["params"]["data"] for raw in told] == ["hello"]


async def test_cancelling_a_request_cancels_it_at_the_server(at: World) -> None:
    at.put(by_hand("modern"))
    server = await endpoint(at)
    task = asyncio.create_task(server.request(modern("mine", "hold"), print, always))
    other = asyncio.create_task(server.request(modern("mine", "hold"), print, always))
    heard = await heard_after(server, 2, "hold")
    task.cancel()
    heard = await heard_after(server, 1, "notifications/cancelled")
    [first, _] = [m["id"] for m in heard if m["method"] == "hold"]
    assert [m["params"]["requestId"] for m in heard if m["method"] == "notifications/cancelled"] == [first]
    await server.request(modern(9, "release"), print, always)
    assert json.loads(await other)["id"] == "mine"


async def heard_after(server: Endpoint, count: int, method: str) -> list[dict[str, Any]]:
    """All that a program by hand has heard, once it has heard `count` messages of `method`."""
    while True:
        answer = await server.request(modern("h", "heard"), print, always)
        heard: list[dict[str, Any]] = json.loads(answer)["result"]["heard"]
        if len([m for m in heard if m["method"] == method]) >= count:
            return heard


async def test_requests_of_many_callers_do_not_mix(at: World) -> None:
    at.put(by_hand("modern"))
    servers = [await endpoint(at) for _ in range(5)]
    told: list[list[bytes]] = [[] for _ in servers]

    async def ask(number: int) -> None:
        meta = {"progressToken": 1, "x-unknown": 2**70}
        raw = modern(1, "hold", who=number, _meta=meta)
        answer = json.loads(await servers[number].request(raw, told[number].append, always))
        assert answer["id"] == 1
        assert answer["result"]["held"]["who"] == number
        assert answer["result"]["held"]["_meta"]["x-unknown"] == 2**70
        assert [json.loads(t)["params"]["progressToken"] for t in told[number]] == [1]

    tasks = [asyncio.create_task(ask(number)) for number in range(5)]
    await heard_after(servers[0], 5, "hold")
    await servers[0].request(modern(1, "release"), print, always)
    await asyncio.gather(*tasks)


async def test_a_subscription_that_the_server_tears_down_ends_with_its_result(at: World) -> None:
    at.put(by_hand("modern"))
    server = await endpoint(at)
    told: list[bytes] = []
    listening = asyncio.create_task(
        server.request(modern("sub", "subscriptions/listen"), told.append, always)
    )
    await eventually(lambda: len(told) == 2)
    heard = await heard_after(server, 1, "subscriptions/listen")
    [id] = [m["id"] for m in heard if m["method"] == "subscriptions/listen"]
    down = {"method": "notifications/cancelled", "params": {"requestId": id}}
    await server.request(modern(3, "tell", messages=[down]), print, always)
    answer = json.loads(await listening)
    meta = {"io.modelcontextprotocol/subscriptionId": "sub"}
    assert answer == {"jsonrpc": "2.0", "id": "sub", "result": {"resultType": "complete", "_meta": meta}}


async def test_a_log_message_that_several_may_have_caused_reaches_none(at: World) -> None:
    at.put(by_hand("modern"))
    server = await endpoint(at)
    told: list[bytes] = []
    meta = {"io.modelcontextprotocol/logLevel": "debug"}
    tasks = [
        asyncio.create_task(server.request(modern(n, "hold", _meta=meta), told.append, always))
        for n in range(2)
    ]
    await heard_after(server, 2, "hold")
    log = {"method": "notifications/message", "params": {"level": "info", "data": "of somebody"}}
    await server.request(modern(3, "tell", messages=[log]), print, always)
    await server.request(modern(4, "release"), print, always)
    await asyncio.gather(*tasks)
    assert told == []
    assert "of somebody" in at.errors()[0]


async def test_closing_an_endpoint_ends_its_requests_and_not_those_of_others(at: World) -> None:
    at.put(by_hand("modern"))
    one, other = await endpoint(at), await endpoint(at)
    ours = asyncio.create_task(one.request(modern(1, "hold"), print, always))
    theirs = asyncio.create_task(other.request(modern(1, "hold"), print, always))
    await heard_after(other, 2, "hold")
    await one.close()
    with pytest.raises(UpstreamFailed):
        await ours
    await heard_after(other, 1, "notifications/cancelled")
    await other.request(modern(2, "release"), print, always)
    assert json.loads(await theirs)["id"] == 1


async def test_requests_that_run_when_the_process_ends_hear_how(at: World) -> None:
    at.put(by_hand("modern"))
    server = await endpoint(at)
    waiting = asyncio.create_task(server.request(modern(1, "hold"), print, always))
    await heard_after(server, 1, "hold")
    with pytest.raises(UpstreamFailed, match="exited with status 3"):
        await server.request(modern(2, "crash"), print, always)
    with pytest.raises(UpstreamFailed, match="exited with status 3"):
        await waiting
