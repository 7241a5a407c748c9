"""Sessions with real servers, of HTTP+SSE and of legacy Streamable HTTP: one contract, `port.Session`."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import pytest

from services.gateway.connection import UpstreamFailed
from services.gateway.links.http import HttpSession
from services.gateway.links.port import Emit, OnClosed, OnFailed, Session, always
from services.gateway.links.route import Route
from services.gateway.links.sse import SseSession
from tests.conftest import eventually
from tests.unit.gateway.links_made import Talk, notification, request, response, route_to, text
from tests.unit.gateway.mcp_servers import App, legacy_app, served, sse_app

Make = Callable[[Route, Emit, OnClosed, OnFailed], Session]
KINDS: dict[str, tuple[Callable[[], App], str, Make]] = {
    "sse": (sse_app, "/sse", SseSession),
    "http": (legacy_app, "/mcp", HttpSession),
}


@dataclass
class Place:
    """A real server, and a session with it that has begun."""

    app: App
    talk: Talk
    route: Route


@pytest.fixture(params=KINDS)
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    make_app, path, make = KINDS[request.param]
    app = make_app()
    async with served(app) as url, route_to(url + path) as route:
        talk = Talk().open(lambda *callbacks: make(route, *callbacks))
        result = await talk.begin()
        assert result["protocolVersion"] == "2025-11-25"
        yield Place(app, talk, route)
        await talk.session.close()
        await talk.session.close()
        assert not talk.closed, "the upstream did not end it"
        assert not talk.failed


async def test_calls_are_answered_also_several_at_once(place: Place) -> None:
    results = await asyncio.gather(*(place.talk.call("echo", text=f"text {n}") for n in range(10)))
    assert [text(result) for result in results] == [f"text {n}" for n in range(10)]


async def test_an_error_of_a_tool_is_its_result(place: Place) -> None:
    result = await place.talk.call("fail")
    assert result["isError"]


async def test_an_error_of_the_protocol_comes_as_an_answer(place: Place) -> None:
    await place.talk.say(request("a", "no/such/method"))
    assert (await place.talk.answer("a"))["error"]["code"] == -32601


async def test_progress_comes_in_order_and_before_the_answer(place: Place) -> None:
    assert text(await place.talk.call("count", to=20)) == "counted to 20"
    steps = place.talk.of("notifications/progress")
    assert [step["params"]["progress"] for step in steps] == list(range(1, 21))
    assert "result" in place.talk.messages[-1]


async def test_log_messages_come(place: Place) -> None:
    await place.talk.call("log", text="hear, hear")
    assert [m["params"]["data"] for m in place.talk.of("notifications/message")] == ["hear, hear"]


async def test_the_server_asks_the_user_and_gets_the_answer(place: Place) -> None:
    id = await place.talk.begin_call("ask")
    await eventually(lambda: place.talk.of("elicitation/create"))
    asked = place.talk.of("elicitation/create")[0]
    await place.talk.say(response(asked["id"], {"action": "accept", "content": {"name": "Ann"}}))
    assert text((await place.talk.answer(id))["result"]) == "you are Ann"


async def test_the_server_asks_the_model_and_gets_the_answer(place: Place) -> None:
    id = await place.talk.begin_call("sample")
    await eventually(lambda: place.talk.of("sampling/createMessage"))
    asked = place.talk.of("sampling/createMessage")[0]
    said = {"role": "assistant", "model": "m", "content": {"type": "text", "text": "hello"}}
    await place.talk.say(response(asked["id"], said))
    assert text((await place.talk.answer(id))["result"]) == "the model said hello"


async def test_what_belongs_to_no_request_comes_too(place: Place) -> None:
    await eventually(lambda: any(method == "GET" for method, _ in place.app.requests))

    async def announced() -> bool:
        await place.talk.call("announce")
        return bool(place.talk.of("notifications/tools/list_changed"))

    async with asyncio.timeout(10):
        while not await announced():  # the stream may not be open yet
            await asyncio.sleep(0.05)


async def test_a_cancelled_request_is_cancelled_at_the_server(place: Place) -> None:
    id = await place.talk.begin_call("slow")
    await eventually(lambda: "slow began" in place.app.did)
    await place.talk.say(notification("notifications/cancelled", requestId=id, reason="test"))
    await eventually(lambda: "slow cancelled" in place.app.did)
    assert text(await place.talk.call("echo", text="still here")) == "still here"


async def test_the_check_comes_before_every_message_and_keeps_it_from_leaving(place: Place) -> None:
    def refuse() -> None:
        raise UpstreamFailed("server_disabled", "meanwhile")

    before = len(place.app.requests)
    with pytest.raises(UpstreamFailed, match="meanwhile"):
        await place.talk.session.send(request(7, "tools/call", name="echo", arguments={"text": "no"}), refuse)
    assert text(await place.talk.call("echo", text="yes")) == "yes"
    assert place.app.did == ["echo yes"]
    assert len(place.app.requests) <= before + 2  # that call, and perhaps the GET stream


async def test_nothing_can_be_sent_after_the_end(place: Place) -> None:
    await place.talk.session.close()
    with pytest.raises(UpstreamFailed, match="closed"):
        await place.talk.session.send(request(8, "ping"), always)


async def test_an_id_comes_back_as_it_was_spelled(place: Place) -> None:
    """The server may spell it otherwise; where the request is known, that is undone."""
    await place.talk.say(request("é", "tools/list"))
    await place.talk.answer("é")


@pytest.mark.parametrize("kind", KINDS)
async def test_an_upstream_that_is_not_there_is_said_to_be_so(kind: str) -> None:
    make = KINDS[kind][2]
    async with route_to("http://127.0.0.1:9/x") as route:
        talk = Talk().open(lambda *callbacks: make(route, *callbacks))
        with pytest.raises(UpstreamFailed, match="refuses connections") as caught:
            await talk.begin()
        assert caught.value.reason == "upstream_unreachable"
        await talk.session.close()
        assert not talk.closed
