"""HTTP+SSE as a session: where its messages go, what its stream may bring, how it ends."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from services.gateway.connection import UpstreamFailed
from services.gateway.links.port import always
from services.gateway.links.sse import SseSession
from tests.conftest import eventually
from tests.unit.gateway.conftest import Exchange, Upstream
from tests.unit.gateway.links_made import (
    SECRET,
    Talk,
    credential,
    event,
    request,
    response,
    route_to,
    scripted,
)


class Stream:
    """Scripts an upstream: begins the stream with `first`, then leaves it to the test."""

    def __init__(
        self, first: bytes = b"event: endpoint\ndata: /messages?session=1\n\n", status: int = 202
    ) -> None:
        self.first, self.status = first, status
        self.open: Exchange | None = None

    async def __call__(self, exchange: Exchange) -> None:
        if exchange.method == "POST":
            await exchange.answer(b"Accepted", self.status)
            return
        self.open = exchange
        await exchange.open_stream()
        await exchange.event(self.first)
        await exchange.until_gone()

    async def send(self, data: bytes, *, last: bool = False) -> None:
        assert self.open
        await self.open.event(data, last=last)


@asynccontextmanager
async def talking(stream: Stream, **options: Any) -> AsyncIterator[tuple[Talk, Upstream]]:
    async with scripted(stream) as upstream, route_to(upstream.url, **options) as route:
        talk = Talk().open(lambda *callbacks: SseSession(route, *callbacks))
        try:
            await talk.session.start()
            yield talk, upstream
        finally:
            await talk.session.close()


@pytest.mark.parametrize(
    "given", ["/messages?session=1", "messages?session=1", "{origin}/messages?session=1"]
)
async def test_messages_go_where_the_first_event_says(given: str) -> None:
    stream = Stream()

    async def script(exchange: Exchange) -> None:
        origin = "http://" + exchange.headers["host"]
        stream.first = b"event: endpoint\ndata: " + given.format(origin=origin).encode() + b"\n\n"
        await stream(exchange)

    async with scripted(script) as upstream, route_to(upstream.url) as route:
        talk = Talk().open(lambda *callbacks: SseSession(route, *callbacks))
        await talk.session.start()
        await talk.say(b'{"jsonrpc": "2.0","method":"x" , "big":1180591620717411303424123}')
        await talk.session.close()
    assert upstream.seen[-1].body == b'{"jsonrpc": "2.0","method":"x" , "big":1180591620717411303424123}'


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (b"http://elsewhere.example/messages", "another origin, http://elsewhere.example:80"),
        (b"//elsewhere.example/messages", "another origin"),
        (b"http://127.0.0.1:1/messages", "another origin"),
        (b"https://127.0.0.1/messages", "another origin"),
        (b"ftp://127.0.0.1/messages", "no usable address"),
        (b"/x HTTP/1.1", "no usable address"),
        (b"/x\ndata: injected: 1", "no usable address"),
        (b"", "no usable address"),
        (b"/" + b"x" * 5000, "no usable address"),
    ],
)
async def test_no_other_origin_gets_the_messages_and_the_credential(given: bytes, said: str) -> None:
    upstream = await refused_upstream(given, said)
    assert [exchange.method for exchange in upstream.seen] == ["GET"]


async def refused_upstream(given: bytes, said: str) -> Upstream:
    stream = Stream(b"event: endpoint\ndata: " + given + b"\n\n")
    async with scripted(stream) as upstream, route_to(upstream.url, credential()) as route:
        talk = Talk().open(lambda *callbacks: SseSession(route, *callbacks))
        with pytest.raises(UpstreamFailed, match=said):
            await talk.session.start()
        assert not talk.closed
        with pytest.raises(UpstreamFailed):
            await talk.session.send(request(1, "x"), always)
        return upstream


async def test_an_upstream_that_does_not_say_where_is_given_up() -> None:
    stream = Stream(b": nothing yet\n\n")
    with pytest.raises(UpstreamFailed, match="did not say where"):
        async with talking(stream, connect_timeout=0.1, response_timeout=0.2):
            pass
    assert stream.open
    await eventually(stream.open.gone.is_set)


@pytest.mark.parametrize(
    ("status", "said"), [(404, "no MCP server"), (405, "HTTP 405"), (401, "credential"), (500, "it failed")]
)
async def test_an_upstream_without_a_stream_is_said_to_be_so(status: int, said: str) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.answer(b"", status)

    async with scripted(script) as upstream, route_to(upstream.url) as route:
        talk = Talk().open(lambda *callbacks: SseSession(route, *callbacks))
        with pytest.raises(UpstreamFailed, match=said):
            await talk.session.start()


async def test_messages_come_as_they_were_written_and_other_events_do_not() -> None:
    odd = b'{"jsonrpc":"2.0", "method":"y","params":{"big":1180591620717411303424123},"extra":1.0}'
    stream = Stream()
    async with talking(stream) as (talk, _):
        await stream.send(b": ping\n\nevent: other\ndata: {}\n\n" + event(odd)[:40])
        await stream.send(event(odd)[40:] + event(b"[" + odd + b"," + odd + b"]"))
        await eventually(lambda: len(talk.raw) == 3)
        assert talk.raw == [odd] * 3
        assert not talk.closed


async def test_the_credential_is_sent_and_never_comes_back() -> None:
    stream = Stream()
    async with scripted(stream) as upstream, route_to(upstream.url, credential()) as route:
        talk = Talk().open(lambda *callbacks: SseSession(route, *callbacks))
        await talk.session.start()
        await talk.say(request(1, "x"))
        raw = event(response(1, {"told": f"Bearer {SECRET}"}))
        await stream.send(raw[:75])
        await stream.send(raw[75:])
        assert set((await talk.answer(1))["result"]["told"].removeprefix("Bearer ")) == {"*"}
        await talk.session.close()
    assert [e.headers["authorization"] for e in upstream.seen] == [f"Bearer {SECRET}"] * 2


async def test_a_message_that_is_not_accepted_fails_where_it_is_sent() -> None:
    async with talking(Stream(status=400)) as (talk, _):
        with pytest.raises(UpstreamFailed, match="HTTP 400"):
            await talk.say(request(1, "x"))
        assert not talk.closed


@pytest.mark.parametrize(
    ("ending", "reason", "said"),
    [
        (b"", "upstream_broke_off", "ended the stream"),
        (b"event: message\ndata: not JSON\n\n", "upstream_bad_answer", "no JSON-RPC message"),
        (b"data: " + b"x" * 70_000, "upstream_bad_answer", "more than 65536 bytes"),
    ],
)
async def test_a_stream_that_ends_or_cannot_be_read_ends_the_session(
    ending: bytes, reason: str, said: str
) -> None:
    stream = Stream()
    async with talking(stream, message_limit=64 * 1024) as (talk, _):
        await stream.send(ending, last=not ending)
        await eventually(lambda: talk.closed)
        assert talk.closed[0].reason == reason
        assert said in talk.closed[0].detail
        with pytest.raises(UpstreamFailed, match=said):
            await talk.say(request(1, "x"))
    assert len(talk.closed) == 1


async def test_closing_ends_the_stream_at_the_upstream_and_messages_on_their_way() -> None:
    stream = Stream()

    async def script(exchange: Exchange) -> None:
        await (exchange.until_gone() if exchange.method == "POST" else stream(exchange))

    async with scripted(script) as upstream, route_to(upstream.url) as route:
        talk = Talk().open(lambda *callbacks: SseSession(route, *callbacks))
        await talk.session.start()
        sending = asyncio.create_task(talk.say(request(1, "x")))
        await eventually(lambda: len(upstream.seen) == 2)
        await talk.session.close()
        with pytest.raises(UpstreamFailed, match="closed"):
            await sending
        assert stream.open
        await eventually(stream.open.gone.is_set)
        assert not talk.closed
