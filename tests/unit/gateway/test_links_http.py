"""Legacy Streamable HTTP as a session: its headers, its streams that break, its end."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from services.gateway.connection import UpstreamFailed
from services.gateway.links import http
from services.gateway.links.http import HttpSession
from services.gateway.links.port import always
from tests.conftest import eventually
from tests.unit.gateway.conftest import Exchange, Script, Upstream
from tests.unit.gateway.links_made import (
    INITIALIZE,
    SECRET,
    Talk,
    credential,
    event,
    notification,
    request,
    response,
    route_to,
    scripted,
    text,
)
from tests.unit.gateway.mcp_servers import legacy_app, served

HANDSHAKE = {"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {"name": "s", "version": "1"}}
NOT_FOUND = b'{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"Session not found"}}'


def with_handshake(script: Script) -> Script:
    """Shakes hands, has no GET stream, and leaves the rest to `script`."""

    async def run(exchange: Exchange) -> None:
        method = exchange.message.get("method", "") if exchange.body else ""
        if method == "initialize":
            await exchange.result(HANDSHAKE, mcp_session_id="session-1")
        elif method.startswith("notifications/"):
            await exchange.answer(b"", 202)
        elif exchange.method == "DELETE" or (
            exchange.method == "GET" and "last-event-id" not in exchange.headers
        ):
            await exchange.answer(b"", 405)
        else:
            await script(exchange)

    return run


@asynccontextmanager
async def talking(script: Script, **options: Any) -> AsyncIterator[tuple[Talk, Upstream]]:
    """A session with a scripted upstream, hands shaken."""
    async with scripted(with_handshake(script)) as upstream, route_to(upstream.url, **options) as route:
        talk = Talk().open(lambda *callbacks: HttpSession(route, *callbacks))
        await talk.begin()
        await eventually(lambda: any(e.method == "GET" for e in upstream.seen))
        yield talk, upstream
        await talk.session.close()


def failure(status: int, body: bytes = b"") -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.answer(body, status)

    return script


# -- what is sent --------------------------------------------------------------------------------------


async def test_session_and_version_are_named_from_the_handshake_on_and_the_session_is_ended() -> None:
    async with talking(failure(500)) as (talk, upstream):
        pass
    assert "mcp-session-id" not in upstream.seen[0].headers
    assert "mcp-protocol-version" not in upstream.seen[0].headers
    for exchange in upstream.seen[1:]:
        assert exchange.headers["mcp-session-id"] == "session-1"
        assert exchange.headers["mcp-protocol-version"] == "2025-06-18"
    assert [exchange.method for exchange in upstream.seen] == ["POST", "POST", "GET", "DELETE"]
    assert not talk.closed


async def test_a_message_arrives_byte_for_byte_and_so_does_its_answer() -> None:
    odd = b'{"jsonrpc": "2.0","id":1, "method":"x", "big":1180591620717411303424123, "x":{"y":[1.50]}}'
    answer = b'{"jsonrpc":"2.0" ,"id":1,"result":{"big":1180591620717411303424123},"extra":{"a":1.0}}'

    async def script(exchange: Exchange) -> None:
        await exchange.answer(answer)

    async with talking(script) as (talk, upstream):
        await talk.say(odd)
        await talk.answer(1)
        assert upstream.seen[-1].body == odd
        assert talk.raw[-1] == answer


async def test_a_version_that_is_no_header_value_is_not_sent_back() -> None:
    async def script(exchange: Exchange) -> None:
        method = exchange.message.get("method") if exchange.body else ""
        if method == "initialize":
            await exchange.result(HANDSHAKE | {"protocolVersion": "1\r\nx-injected: 1"})
        else:
            await exchange.answer(b"", 202)

    async with scripted(script) as upstream, route_to(upstream.url) as route:
        talk = Talk().open(lambda *callbacks: HttpSession(route, *callbacks))
        await talk.begin()
        assert "mcp-protocol-version" not in upstream.seen[1].headers
        assert "x-injected" not in upstream.seen[1].headers
        await talk.session.close()


async def test_the_credential_is_sent_and_never_comes_back() -> None:
    async def script(exchange: Exchange) -> None:
        told = exchange.headers["authorization"]
        await exchange.open_stream()
        step = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": told}}
        await exchange.event(event(json.dumps(step).encode()))
        raw = event(response(exchange.message["id"], {"told": told}))
        await exchange.event(raw[:90])
        await exchange.event(raw[90:], last=True)

    async with (
        scripted(with_handshake(script)) as upstream,
        route_to(upstream.url, credential()) as route,
    ):
        talk = Talk().open(lambda *callbacks: HttpSession(route, *callbacks))
        await talk.begin()
        await talk.say(request(1, "x"))
        await talk.answer(1)
        await talk.session.close()
    assert {exchange.headers["authorization"] for exchange in upstream.seen} == {f"Bearer {SECRET}"}
    assert SECRET.encode() not in b"".join(talk.raw)
    assert b"*****" in talk.raw[-1]


async def test_a_new_credential_counts_from_the_next_message_on() -> None:
    async with talking(failure(500)) as (talk, upstream):
        assert isinstance(talk.session, HttpSession)
        async with route_to(upstream.url, credential()) as renewed:
            talk.session.route = renewed
            await talk.say(notification("notifications/x"))
    assert upstream.seen[-1].headers["authorization"] == f"Bearer {SECRET}"


async def test_any_error_of_the_check_keeps_the_message_and_not_the_session() -> None:
    def refuse() -> None:
        raise LookupError("not now")

    async with talking(failure(200, response(1, {}))) as (talk, upstream):
        before = len(upstream.seen)
        with pytest.raises(LookupError):
            await talk.session.send(request(1, "x"), refuse)
        assert len(upstream.seen) == before
        await talk.say(request(1, "x"))
        await talk.answer(1)


# -- what comes ----------------------------------------------------------------------------------------


async def test_an_error_with_a_status_of_its_own_is_the_answer_to_its_request() -> None:
    error = b'{"jsonrpc":"2.0","id":null,"error":{"code":-32602,"message":"no","data":{"x":1}}}'
    async with talking(failure(400, error)) as (talk, _):
        await talk.say(request("q", "x"))
        assert (await talk.answer("q"))["error"] == {"code": -32602, "message": "no", "data": {"x": 1}}


@pytest.mark.parametrize(
    ("status", "reason", "said"),
    [
        (400, "upstream_bad_answer", "HTTP 400"),
        (401, "upstream_unauthorized", "credential"),
        (302, "upstream_bad_answer", "redirects"),
        (429, "upstream_busy", "HTTP 429"),
        (503, "upstream_bad_answer", "not available now"),
        (202, "upstream_bad_answer", "without answering"),
    ],
)
async def test_a_message_that_is_not_accepted_fails_where_it_is_sent(
    status: int, reason: str, said: str
) -> None:
    async with talking(failure(status)) as (talk, _):
        with pytest.raises(UpstreamFailed, match=said) as caught:
            await talk.say(request(1, "x"))
        assert caught.value.reason == reason
        assert not talk.failed
        assert not talk.closed


async def test_every_message_of_a_batch_comes() -> None:
    """JSON-RPC batches are part of 2025-03-26."""

    async def script(exchange: Exchange) -> None:
        step = notification("notifications/progress", progress=1)
        await exchange.answer(b"[" + step + b"," + response(exchange.message["id"], {}) + b"]")

    async with talking(script) as (talk, _):
        await talk.say(request(1, "x"))
        await talk.answer(1)
        assert len(talk.of("notifications/progress")) == 1


async def test_a_response_with_the_id_in_another_spelling_is_addressed_as_the_request() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.answer(b'{"jsonrpc":"2.0","id":"\\u00e9","result":{}}')

    async with talking(script) as (talk, _):
        await talk.say('{"jsonrpc":"2.0","id":"é","method":"x"}'.encode())
        await talk.answer("é")
        assert '"id":"é"'.encode() in talk.raw[-1]


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"jsonrpc":"2.0","id":99,"result":{}}', "before the result"),
        (b"not JSON", "no JSON-RPC message"),
        (b"[]", "before the result"),
    ],
)
async def test_an_answer_that_is_none_is_reported_to_who_waits(body: bytes, said: str) -> None:
    async with talking(failure(200, body)) as (talk, _):
        await talk.say(request(1, "x"))
        await eventually(lambda: talk.failed)
        assert said in talk.failed[b"1"].detail
        assert not talk.closed, "the session goes on"


async def test_an_event_that_is_too_long_is_not_collected() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.open_stream()
        for _ in range(64):
            await exchange.event(b"data: " + b"x" * 4096)
        await exchange.until_gone()

    async with talking(script, message_limit=64 * 1024) as (talk, upstream):
        await talk.say(request(1, "x"))
        await eventually(lambda: talk.failed)
        assert "more than 65536 bytes" in talk.failed[b"1"].detail
        await eventually(upstream.seen[-1].gone.is_set)


# -- streams that break --------------------------------------------------------------------------------


async def test_a_request_whose_stream_ends_without_events_to_resume_from_has_failed() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.open_stream()
        await exchange.event(event(notification("notifications/progress", progress=1)), last=True)

    async with talking(script) as (talk, _):
        await talk.say(request(1, "x"))
        await eventually(lambda: talk.failed)
        assert talk.failed[b"1"].reason == "upstream_broke_off"
        assert len(talk.of("notifications/progress")) == 1


async def test_a_stream_that_breaks_is_resumed_after_its_last_event() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.open_stream()
        if exchange.method == "POST":
            await exchange.event(b"id: e1\nretry: 10\ndata:\n\n")
            await exchange.event(event(notification("notifications/progress", progress=1), "e2"), last=True)
        else:
            assert exchange.headers["last-event-id"] == "e2"
            await exchange.event(event(response(1, {"late": True}), "e3"), last=True)

    async with talking(script) as (talk, _):
        await talk.say(request(1, "x"))
        assert (await talk.answer(1))["result"] == {"late": True}
        assert not talk.failed


async def test_a_real_server_may_close_a_stream_and_have_it_resumed() -> None:
    async with served(legacy_app()) as url, route_to(url + "/mcp") as route:
        talk = Talk().open(lambda *callbacks: HttpSession(route, *callbacks))
        await talk.begin()
        assert text(await talk.call("interrupted")) == "after the interruption"
        await talk.session.close()


async def test_a_stream_that_cannot_be_resumed_is_given_up() -> None:
    async def script(exchange: Exchange) -> None:
        if exchange.method == "POST":
            await exchange.open_stream()
            await exchange.event(b"id: e1\nretry: 10\ndata:\n\n", last=True)
        else:
            await exchange.answer(b"", 500)

    async with talking(script) as (talk, upstream):
        await talk.say(request(1, "x"))
        await eventually(lambda: talk.failed)
        assert "HTTP 500" in talk.failed[b"1"].detail
        resumed = [e for e in upstream.seen if "last-event-id" in e.headers]
        assert len(resumed) == http.RESUMPTIONS


async def test_a_session_that_is_lost_while_a_stream_is_resumed_has_ended() -> None:
    async def script(exchange: Exchange) -> None:
        if exchange.method == "POST":
            await exchange.open_stream()
            await exchange.event(b"id: e1\nretry: 10\ndata:\n\n", last=True)
        else:
            await exchange.answer(NOT_FOUND, 404)

    async with talking(script) as (talk, _):
        await talk.say(request(1, "x"))
        await eventually(lambda: talk.closed)
        assert isinstance(talk.session, HttpSession)
        await eventually(lambda: not talk.session._streams)  # type: ignore[attr-defined]
        assert not talk.failed, "its end has been told already"


async def test_a_stream_that_is_kept_open_after_the_answer_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "LINGER", 0.05)

    async def script(exchange: Exchange) -> None:
        await exchange.open_stream()
        await exchange.event(event(response(1, {})))
        await exchange.until_gone()

    async with talking(script) as (talk, upstream):
        await talk.say(request(1, "x"))
        await talk.answer(1)
        await eventually(upstream.seen[-1].gone.is_set)
        assert not talk.failed


async def test_connections_are_kept_after_answers_in_streams() -> None:
    """Or every call would cost a handshake."""
    app = legacy_app()
    async with served(app) as url, route_to(url + "/mcp") as route:
        talk = Talk().open(lambda *callbacks: HttpSession(route, *callbacks))
        await talk.begin()
        for _ in range(5):
            await talk.call("count", to=2)
        await talk.session.close()
        assert len(app.clients) <= 3, "one for the GET stream, one or two for the rest"


async def test_a_cancelled_request_is_not_waited_for_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "GRACE", 0.1)

    async def script(exchange: Exchange) -> None:
        await exchange.open_stream()
        await exchange.until_gone()

    async with talking(script) as (talk, upstream):
        await talk.say(request(1, "x"))
        await talk.say(notification("notifications/cancelled", requestId=1))
        await eventually(lambda: talk.failed)
        assert talk.failed[b"1"].reason == "upstream_timeout"
        await eventually(lambda: any(e.gone.is_set() for e in upstream.seen))


async def test_cancelling_who_sends_ends_the_stream_of_the_message() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.until_gone()

    async with talking(script) as (talk, upstream):
        sending = asyncio.create_task(talk.session.send(request(1, "x"), always))
        await eventually(lambda: b'"x"' in upstream.seen[-1].body)
        sending.cancel()
        await eventually(upstream.seen[-1].gone.is_set)
        assert not talk.failed
        assert not talk.closed


# -- the stream for everything else --------------------------------------------------------------------


async def test_the_listening_stream_is_opened_again_after_its_last_event() -> None:
    opened: list[str] = []

    async def script(exchange: Exchange) -> None:
        if exchange.method == "GET":
            opened.append(exchange.headers.get("last-event-id", ""))
            await exchange.open_stream()
            id = f"g{len(opened)}"
            await exchange.event(b"retry: 10\n" + event(notification("notifications/x", n=len(opened)), id))
            if len(opened) < 3:
                await exchange.event(b"", last=True)
            else:
                await exchange.until_gone()
        elif exchange.method == "POST" and exchange.message["method"] == "initialize":
            await exchange.result(HANDSHAKE, mcp_session_id="session-1")
        else:
            await exchange.answer(b"", 202)

    async with scripted(script) as upstream, route_to(upstream.url) as route:
        talk = Talk().open(lambda *callbacks: HttpSession(route, *callbacks))
        await talk.begin()
        await eventually(lambda: len(talk.of("notifications/x")) == 3)
        assert opened == ["", "g1", "g2"]
        await talk.session.close()
        await eventually(lambda: any(e.gone.is_set() for e in upstream.seen))


async def test_an_upstream_without_a_listening_stream_is_asked_once() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.result({})

    async with talking(script) as (talk, upstream):
        await talk.say(request(1, "x"))
        await talk.answer(1)
        assert [e.method for e in upstream.seen].count("GET") == 1


# -- the end -------------------------------------------------------------------------------------------


async def test_a_session_that_the_upstream_no_longer_knows_has_ended() -> None:
    """404, by the specification. Everything that still runs in it ends too, without another word."""

    async def script(exchange: Exchange) -> None:
        if exchange.message["method"] == "lost":
            await exchange.answer(NOT_FOUND, 404)
        else:
            await exchange.open_stream()
            await exchange.until_gone()

    async with talking(script) as (talk, upstream):
        await talk.say(request(1, "x"))
        with pytest.raises(UpstreamFailed) as caught:
            await talk.say(request(2, "lost"))
        assert caught.value.reason == "session_lost"
        assert [failure.reason for failure in talk.closed] == ["session_lost"]
        await eventually(lambda: any(e.gone.is_set() for e in upstream.seen))
        with pytest.raises(UpstreamFailed):
            await talk.say(request(3, "x"))
        assert not talk.failed
        assert b'"error"' not in b"".join(talk.raw)


async def test_a_session_that_is_lost_while_listening_has_ended() -> None:
    async def script(exchange: Exchange) -> None:
        if exchange.method == "GET":
            await exchange.answer(NOT_FOUND, 404)
        elif exchange.message["method"] == "initialize":
            await exchange.result(HANDSHAKE, mcp_session_id="session-1")
        else:
            await exchange.answer(b"", 202)

    async with scripted(script) as upstream, route_to(upstream.url) as route:
        talk = Talk().open(lambda *callbacks: HttpSession(route, *callbacks))
        await talk.begin()
        await eventually(lambda: talk.closed)
        assert isinstance(talk.session, HttpSession)
        await eventually(lambda: not talk.session._streams)  # type: ignore[attr-defined]
        assert [e.method for e in upstream.seen].count("GET") == 1


async def test_an_unknown_method_with_status_404_does_not_end_the_session() -> None:
    error = b'{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"Method not found"}}'
    async with talking(failure(404, error)) as (talk, _):
        await talk.say(request(1, "x"))
        assert (await talk.answer(1))["error"]["code"] == -32601
        assert not talk.closed


async def test_a_real_server_that_lost_the_session_ends_it() -> None:
    first, second = legacy_app(), legacy_app()
    async with served(first) as url, route_to(url + "/mcp") as route, served(second) as other:
        talk = Talk().open(lambda *callbacks: HttpSession(route, *callbacks))
        await talk.begin()
        async with route_to(other + "/mcp") as moved:
            assert isinstance(talk.session, HttpSession)
            talk.session.route = moved
            with pytest.raises(UpstreamFailed, match="session"):
                await talk.say(request(1, "tools/list"))
            assert len(talk.closed) == 1
            await talk.session.close()


async def test_closing_while_a_message_waits_lets_its_sender_go() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.until_gone()

    async with talking(script) as (talk, upstream):
        sending = asyncio.create_task(talk.say(request(1, "x")))
        await eventually(lambda: b'"x"' in upstream.seen[-1].body)
        await talk.session.close()
        with pytest.raises(UpstreamFailed, match="closed"):
            await sending


async def test_closing_right_after_sending_lets_the_sender_go() -> None:
    async with talking(failure(500)) as (talk, _):
        sending = asyncio.create_task(talk.say(request(1, "x")))
        await asyncio.gather(talk.session.close(), return_exceptions=True)
        with pytest.raises(UpstreamFailed):
            await sending


async def test_an_upstream_that_never_answers_is_given_up_by_its_timeout() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.until_gone()

    async with scripted(script) as upstream, route_to(upstream.url, response_timeout=0.2) as route:
        talk = Talk().open(lambda *callbacks: HttpSession(route, *callbacks))
        with pytest.raises(UpstreamFailed) as caught:
            await talk.say(INITIALIZE)
        assert caught.value.reason == "upstream_timeout"
        await talk.session.close()
