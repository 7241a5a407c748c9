"""Open streams: what the gateway says on them itself, when, and where."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import msgspec
import pytest

from libs.common.control.entries import AnyEntry, CredentialVersion, Group, Member, Server, ServerAccess, User
from libs.common.decision.ladder import Decision
from services.gateway import downstream
from services.gateway.downstream import as_events, beats
from services.gateway.listen import Listen
from services.gateway.sse import KEEP_ALIVE
from tests.conftest import eventually
from tests.unit.gateway.conftest import Exchange, House, token

VERSION = "io.modelcontextprotocol/protocolVersion"
SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"
ALL: dict[str, object] = {"toolsListChanged": True, "promptsListChanged": True, "resourcesListChanged": True}


def acknowledged(id: object, **kinds: object) -> bytes:
    return msgspec.json.encode(
        {
            "jsonrpc": "2.0",
            "method": "notifications/subscriptions/acknowledged",
            "params": {"_meta": {SUBSCRIPTION: id}, "notifications": kinds},
        }
    )


# -- which changes are told ------------------------------------------------------------------------

SERVER = Server(version=1, slug="demo", name="Demo", url="http://u.example/mcp", tools={"a": ""})
OPEN = ServerAccess(tools={"x": "deny"}, prompts={"x": "deny"}, resources={"x": "deny"})


def decision(access: ServerAccess = OPEN, server: Server = SERVER, credential: str = "") -> Decision:
    group = Group(version=1, id="default", name="E", servers={"demo": access})
    return Decision(True, "allowed", "group.default", 1, server=server, group=group, credential=credential)


def listening(id: bytes = b"7", asked: dict[str, object] = ALL, honored: dict[str, object] = ALL) -> Listen:
    listen = Listen(decision(), id, msgspec.json.encode({"notifications": asked}))
    listen.saw(acknowledged(json.loads(id), **honored))
    return listen


def said(listen: Listen) -> list[str]:
    return [json.loads(message)["method"].split("/")[1] for message in listen.due()]


EVERYTHING = ["tools", "prompts", "resources"]
CHANGES: dict[str, tuple[Decision, list[str]]] = {
    "nothing that counts": (decision(server=Server(**(msgspec.structs.asdict(SERVER) | {"version": 2}))), []),
    "a tool": (decision(ServerAccess(tools={}, prompts=OPEN.prompts, resources=OPEN.resources)), ["tools"]),
    "a prompt": (decision(ServerAccess(tools=OPEN.tools, prompts={}, resources=OPEN.resources)), ["prompts"]),
    "a resource": (decision(ServerAccess(tools=OPEN.tools, prompts=OPEN.prompts)), ["resources"]),
    "the default": (
        decision(
            ServerAccess(default="deny", tools=OPEN.tools, prompts=OPEN.prompts, resources=OPEN.resources)
        ),
        EVERYTHING,
    ),
    "the tools of the server": (
        decision(server=Server(**(msgspec.structs.asdict(SERVER) | {"tools": ["a", "b"]}))),
        ["tools"],
    ),
    "where the server is": (
        decision(server=Server(**(msgspec.structs.asdict(SERVER) | {"url": "http://v.example/mcp"}))),
        EVERYTHING,
    ),
    "whose credential is used": (decision(credential="demo.alice"), EVERYTHING),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_changed_for_the_caller_is_told_once(name: str) -> None:
    changed, told = CHANGES[name]
    listen = listening()
    listen.noticed(changed)
    assert listen.wake.is_set() is bool(told)
    assert said(listen) == told
    assert said(listen) == [] and not listen.wake.is_set()
    listen.noticed(changed)
    assert said(listen) == [], "it is as it was"


def test_nothing_is_said_before_the_acknowledgement_and_all_of_it_after() -> None:
    listen = Listen(decision(), b'"s"', msgspec.json.encode({"notifications": ALL}))
    listen.noticed(decision(ServerAccess()))
    listen.saw(acknowledged("another", **ALL))
    listen.saw(b'{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}')
    assert not listen.wake.is_set() and said(listen) == []
    listen.saw(acknowledged("s", **ALL))
    assert listen.wake.is_set() and said(listen) == EVERYTHING


def test_only_what_was_asked_for_and_acknowledged_is_said() -> None:
    cases: list[tuple[dict[str, object], dict[str, object], list[str]]] = [
        ({"toolsListChanged": True}, ALL, ["tools"]),
        (ALL, {"promptsListChanged": True}, ["prompts"]),
        ({"toolsListChanged": True}, {"promptsListChanged": True}, []),
        ({"toolsListChanged": False, "promptsListChanged": 1}, ALL, []),
        ({}, ALL, []),
    ]
    for asked, honored, told in cases:
        listen = listening(asked=asked, honored=honored)
        listen.noticed(decision(ServerAccess()))
        assert said(listen) == told


def test_nothing_is_said_after_the_end() -> None:
    listen = listening()
    listen.saw(b'{"jsonrpc":"2.0","id":7,"result":{}}')
    listen.noticed(decision(ServerAccess()))
    assert said(listen) == []


@pytest.mark.parametrize("id", [b"7", b'"7"', b"%d" % 2**70, b'"\\u0061"'])
def test_the_subscription_id_is_the_id_of_the_request(id: bytes) -> None:
    listen = listening(id)
    listen.noticed(decision(ServerAccess()))
    for message in listen.due():
        assert json.loads(message)["params"]["_meta"] == {SUBSCRIPTION: json.loads(id)}


def test_a_stream_on_which_nothing_was_asked_is_only_kept_alive() -> None:
    listen = Listen(decision())
    listen.noticed(decision(ServerAccess()))
    assert not listen.wake.is_set()
    assert as_events(listen.due()) == KEEP_ALIVE


# -- when ------------------------------------------------------------------------------------------


async def test_silence_has_a_beat_and_so_has_every_call() -> None:
    wake, source = asyncio.Event(), asyncio.Queue[bytes]()

    async def chunks() -> AsyncIterator[bytes]:
        while chunk := await source.get():
            yield chunk

    async with contextlib.aclosing(beats(chunks(), wake, 0.05)) as heard:
        source.put_nowait(b"1")
        assert await anext(heard) == b"1"
        assert await anext(heard) is None  # nothing came
        wake.set()
        assert await anext(heard) is None
        wake.clear()
        source.put_nowait(b"2")
        assert await anext(heard) == b"2", "no chunk is lost by a beat"
        source.put_nowait(b"")
        assert [chunk async for chunk in heard] == []


async def test_a_stream_that_breaks_off_says_so_between_beats() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"1"
        raise ConnectionError

    with pytest.raises(ConnectionError):
        assert [chunk async for chunk in beats(chunks(), asyncio.Event(), 9)]


# -- through the lane ------------------------------------------------------------------------------


def listen_request(house: House, id: object = 7, **kinds: Any) -> bytes:
    params = {"_meta": {VERSION: "2026-07-28"}, "notifications": kinds}
    return house.message("subscriptions/listen", params, id)


@contextlib.asynccontextmanager
async def opened(house: House, body: bytes) -> AsyncIterator[tuple[httpx2.Response, AsyncIterator[bytes]]]:
    headers = {"authorization": f"Bearer {token()}", "content-type": "application/json"}
    headers |= {"mcp-method": "subscriptions/listen", "mcp-protocol-version": "2026-07-28"}
    async with house.client.stream(
        "POST", f"{house.url}/mcp/demo", content=body, headers=headers
    ) as response:
        yield response, response.aiter_raw()


async def until(chunks: AsyncIterator[bytes], end: bytes) -> bytes:
    read = b""
    async with asyncio.timeout(5):
        while not read.endswith(end):
            read += await anext(chunks)
    return read


POLICY: dict[str, AnyEntry] = {
    "their group loses a tool": Group(
        version=2,
        id="default",
        name="E",
        servers={"demo": ServerAccess(tools={"forbidden": "deny", "other": "deny"})},
    ),
    "they move to another group": Member(version=1, user="alice", group="others"),
    "the server has other tools": Server(version=2, slug="demo", name="Demo", tools={"new": ""}),
}
OTHERS = Group(version=1, id="others", name="O", servers={"demo": ServerAccess()})


@pytest.mark.parametrize("name", POLICY)
async def test_a_change_of_policy_reaches_the_callers_stream_between_two_events(
    house: House, name: str
) -> None:
    halfway, go_on = asyncio.Event(), asyncio.Event()
    ack, note = acknowledged(7, toolsListChanged=True), b'{"jsonrpc":"2.0","method":"notifications/message"}'

    async def script(exchange: Exchange) -> None:
        await exchange.open_stream()
        await exchange.event(b"data: " + ack + b"\n\ndata: " + note[:20])
        halfway.set()
        await go_on.wait()
        await exchange.event(note[20:] + b"\n\n")
        await exchange.until_gone()

    house.upstream.script = script
    await house.put(OTHERS)
    change = POLICY[name]
    if isinstance(change, Server):
        change = msgspec.structs.replace(change, url=house.upstream.url)
    async with opened(house, listen_request(house, toolsListChanged=True)) as (response, chunks):
        assert await until(chunks, b"\n\n") == b"data: " + ack + b"\n\n"
        assert response.headers["x-accel-buffering"] == "no"
        await asyncio.wait_for(halfway.wait(), 5)
        await house.put(change)
        ours = await until(chunks, b"\n\n")
        fields = dict(line.split(": ", 1) for line in ours.decode().strip().split("\n"))
        assert json.loads(fields["data"]) == {
            "jsonrpc": "2.0",
            "method": "notifications/tools/list_changed",
            "params": {"_meta": {SUBSCRIPTION: 7}},
        }
        go_on.set()
        assert await until(chunks, b"\n\n") == b"data: " + note + b"\n\n"


async def test_what_does_not_concern_the_caller_is_not_told(house: House) -> None:
    finish = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.open_stream()
        await exchange.event(b"data: " + acknowledged(7, **ALL) + b"\n\n")
        await finish.wait()
        await exchange.event(b": bye\n\n", last=True)

    house.upstream.script = script
    async with opened(house, listen_request(house, **ALL)) as (_, chunks):
        await until(chunks, b"\n\n")
        await house.put(OTHERS, User(version=1, id="carol", email="carol@x.example"))
        await house.put(
            CredentialVersion(version=1, slug="keyed", user="alice", origin="http://x.example:80")
        )
        finish.set()
        assert await until(chunks, b"\n\n") == b": bye\n\n"


async def test_a_stream_for_a_resource_that_is_denied_now_is_ended(house: House) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.open_stream()
        await exchange.event(b"data: " + acknowledged(7, resourceSubscriptions=["file:///a"]) + b"\n\n")
        await exchange.until_gone()

    house.upstream.script = script
    async with opened(house, listen_request(house, resourceSubscriptions=["file:///a"])) as (_, chunks):
        await until(chunks, b"\n\n")
        access = ServerAccess(resources={"file:///*": "deny"})
        await house.put(Group(version=2, id="default", name="E", servers={"demo": access}))
        with pytest.raises(httpx2.RemoteProtocolError):
            await until(chunks, b"\n\n")
    await asyncio.wait_for(house.upstream.seen[0].gone.wait(), 5)
    record = await house.record()
    assert (record["status"], record["reason"]) == ("denied", "resource_denied")


@pytest.mark.parametrize("method", ["listen", "GET"])
async def test_a_silent_stream_is_kept_alive_and_no_event_is_torn_by_it(
    house: House, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(downstream, "SILENCE", 0.05)
    go_on = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.open_stream()
        await exchange.event(b"data: 1\n\ndata:")
        await go_on.wait()
        await exchange.event(b" 2\n\n")
        await exchange.until_gone()

    house.upstream.script = script
    stream = opened(house, listen_request(house)) if method == "listen" else opened_get(house)
    async with stream as (_, chunks):
        assert await until(chunks, KEEP_ALIVE) == b"data: 1\n\n" + KEEP_ALIVE
        go_on.set()
        assert (await until(chunks, b"data: 2\n\n")).replace(KEEP_ALIVE, b"") == b"data: 2\n\n"
    await asyncio.wait_for(house.upstream.seen[0].gone.wait(), 5)
    await eventually(lambda: len(house.records()) == 1)


@contextlib.asynccontextmanager
async def opened_get(house: House) -> AsyncIterator[tuple[httpx2.Response, AsyncIterator[bytes]]]:
    headers = {"authorization": f"Bearer {token()}"}
    async with house.client.stream("GET", f"{house.url}/mcp/demo", headers=headers) as response:
        yield response, response.aiter_raw()
