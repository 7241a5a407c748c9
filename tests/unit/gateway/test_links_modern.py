"""Modern Streamable HTTP as an endpoint: its headers, its answers, what ends it."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from services.gateway.connection import UpstreamFailed
from services.gateway.envelope import decode_header
from services.gateway.links.modern import ModernEndpoint
from services.gateway.links.port import always
from tests.conftest import eventually
from tests.unit.gateway.conftest import Exchange, Script, Upstream
from tests.unit.gateway.links_made import (
    SECRET,
    credential,
    event,
    modern,
    notification,
    request,
    response,
    route_to,
    scripted,
    text,
)
from tests.unit.gateway.mcp_servers import App, modern_and_legacy_app, modern_only_app, served


class Asker:
    """Asks an endpoint, and keeps the notifications."""

    def __init__(self, endpoint: ModernEndpoint) -> None:
        self.endpoint = endpoint
        self.heard: list[bytes] = []

    async def ask(self, message: bytes) -> dict[str, Any]:
        async with asyncio.timeout(10):
            decoded: dict[str, Any] = json.loads(
                await self.endpoint.request(message, self.heard.append, always)
            )
            return decoded

    async def call(self, tool: str, _meta: Any = None, **arguments: Any) -> dict[str, Any]:
        message = modern(1, "tools/call", name=tool, arguments=arguments, _meta=_meta or {})
        return await self.ask(message)

    @property
    def notifications(self) -> list[dict[str, Any]]:
        return [json.loads(raw) for raw in self.heard]


@pytest.fixture(params=[modern_only_app, modern_and_legacy_app])
async def real(request: pytest.FixtureRequest) -> AsyncIterator[tuple[Asker, App]]:
    make: Callable[[], App] = request.param
    app = make()
    async with served(app) as url, route_to(url + "/mcp") as route:
        endpoint = ModernEndpoint(route)
        yield Asker(endpoint), app
        await endpoint.close()


@asynccontextmanager
async def asking(script: Script, **options: Any) -> AsyncIterator[tuple[Asker, Upstream]]:
    async with scripted(script) as upstream, route_to(upstream.url, **options) as route:
        endpoint = ModernEndpoint(route)
        yield Asker(endpoint), upstream
        await endpoint.close()


def answering(body: bytes, status: int = 200) -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.answer(body, status)

    return script


# -- real servers --------------------------------------------------------------------------------------


async def test_requests_are_answered_also_several_at_once(real: tuple[Asker, App]) -> None:
    asker, _ = real
    answers = await asyncio.gather(*(asker.call("echo", text=f"text {n}") for n in range(10)))
    assert [text(answer["result"]) for answer in answers] == [f"text {n}" for n in range(10)]
    discovered = await asker.ask(modern("d", "server/discover"))
    assert discovered["id"] == "d"
    assert "2026-07-28" in discovered["result"]["supportedVersions"]


async def test_progress_comes_in_order_before_the_answer(real: tuple[Asker, App]) -> None:
    asker, _ = real
    answer = await asker.call("count", {"progressToken": "p"}, to=20)
    assert text(answer["result"]) == "counted to 20"
    assert [n["params"]["progress"] for n in asker.notifications] == list(range(1, 21))


async def test_a_request_for_input_is_a_result_and_can_be_tried_again_with_it(
    real: tuple[Asker, App],
) -> None:
    asker, _ = real
    first = (await asker.call("ask"))["result"]
    assert first["resultType"] == "input_required"
    (key,) = first["inputRequests"]
    responses = {key: {"action": "accept", "content": {"name": "Ann"}}}
    again = modern(
        2,
        "tools/call",
        name="ask",
        arguments={},
        requestState=first["requestState"],
        inputResponses=responses,
    )
    assert text((await asker.ask(again))["result"]) == "you are Ann"


async def test_cancelling_who_waits_cancels_the_request_at_the_server(real: tuple[Asker, App]) -> None:
    asker, app = real
    waiting = asyncio.create_task(asker.call("slow", {"progressToken": "p"}))
    await eventually(lambda: asker.heard)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await eventually(lambda: "slow cancelled" in app.did)


async def test_a_subscription_brings_notifications_until_it_is_cancelled(real: tuple[Asker, App]) -> None:
    asker, _ = real
    wanted = {"toolsListChanged": True}
    listening = asyncio.create_task(asker.ask(modern("s", "subscriptions/listen", notifications=wanted)))
    await eventually(lambda: asker.heard)
    assert asker.notifications[0]["method"] == "notifications/subscriptions/acknowledged"
    await asker.call("announce")
    await eventually(lambda: len(asker.heard) == 2)
    assert asker.notifications[1]["method"] == "notifications/tools/list_changed"
    listening.cancel()
    await asyncio.wait([listening])


async def test_errors_of_the_protocol_are_answers(real: tuple[Asker, App]) -> None:
    asker, _ = real
    assert (await asker.ask(modern("m", "no/such/method")))["error"]["code"] == -32601  # 404
    assert (await asker.ask(request("v", "tools/list")))["error"]["code"] in {-32602, -32022, -32600}  # 400


async def test_marked_parameters_are_mirrored_once_the_tool_was_listed(real: tuple[Asker, App]) -> None:
    """The server refuses a call whose headers do not say what its arguments say."""
    asker, app = real
    unlisted = await asker.call("located", region="köln", query="x")
    assert unlisted["error"]["code"] == -32020, "goes back as it is: the client may list, and try again"
    await asker.ask(modern("l", "tools/list"))
    assert text((await asker.call("located", region="köln", query="x"))["result"]) == "köln: x"
    _, headers = app.requests[-1]
    assert decode_header(headers["mcp-param-region"].encode()) == "köln"


async def test_names_are_mirrored_also_where_they_are_no_header_values(real: tuple[Asker, App]) -> None:
    asker, _ = real
    answer = await asker.ask(modern(1, "resources/read", uri="demo://greeting"))
    assert answer["result"]["contents"][0]["text"] == "hello"
    answer = await asker.ask(modern(2, "prompts/get", name="introduce", arguments={"name": "Ann"}))
    assert answer["result"]["messages"][0]["content"]["text"] == "I am Ann"
    unknown = await asker.ask(modern(3, "tools/call", name=" größe\n", arguments={}))
    assert "disagree" not in json.dumps(unknown)
    assert unknown.get("error", {}).get("code") != -32020, "the header says what the body says"


async def test_a_notification_is_taken(real: tuple[Asker, App]) -> None:
    asker, app = real
    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}
    await asker.endpoint.notify(notification("notifications/x", _meta=meta), always)
    assert app.requests[-1][1]["mcp-method"] == "notifications/x"


# -- scripted upstreams --------------------------------------------------------------------------------


async def test_a_message_arrives_byte_for_byte_and_so_does_its_answer() -> None:
    odd = b'{"jsonrpc": "2.0","id":1, "method":"x", "big":1180591620717411303424123, "x":{"y":[1.50]}}'
    answer = b'{"jsonrpc":"2.0" ,"id":1,"result":{"big":1180591620717411303424123},"extra":{"a":1.0}}'
    async with asking(answering(answer)) as (asker, upstream):
        assert await asker.endpoint.request(odd, asker.heard.append, always) == answer
        assert upstream.seen[0].body == odd


async def test_the_headers_of_a_request_repeat_what_its_body_says() -> None:
    async with asking(answering(response(1, {}))) as (asker, upstream):
        await asker.ask(modern(1, "tasks/get", taskId="task 1"))
        headers = upstream.seen[0].headers
        assert headers["mcp-protocol-version"] == "2026-07-28"
        assert headers["mcp-method"] == "tasks/get"
        assert headers["mcp-name"] == "task 1"
        assert "application/json" in headers["accept"]
        assert "text/event-stream" in headers["accept"]


async def test_the_check_comes_before_the_first_byte() -> None:
    def refuse() -> None:
        raise UpstreamFailed("server_disabled", "meanwhile")

    async with asking(answering(response(1, {}))) as (asker, upstream):
        with pytest.raises(UpstreamFailed, match="meanwhile"):
            await asker.endpoint.request(modern(1, "x"), asker.heard.append, refuse)
        with pytest.raises(UpstreamFailed, match="meanwhile"):
            await asker.endpoint.notify(notification("x"), refuse)
        assert not upstream.seen


async def test_the_credential_is_sent_and_never_comes_back() -> None:
    async def script(exchange: Exchange) -> None:
        told = exchange.headers["authorization"]
        if exchange.message["id"] == 1:
            await exchange.answer(response(1, {"told": told}))
        elif exchange.message["id"] == 2:
            error = {"jsonrpc": "2.0", "id": 2, "error": {"code": 1, "message": told}}
            await exchange.answer(json.dumps(error).encode(), 400)
        else:
            await exchange.open_stream()
            await exchange.event(event(notification("notifications/x", told=told)))
            raw = event(response(3, {"told": told}))
            await exchange.event(raw[:80])
            await exchange.event(raw[80:], last=True)

    async with scripted(script) as upstream, route_to(upstream.url, credential()) as route:
        asker = Asker(ModernEndpoint(route))
        for id in (1, 2, 3):
            assert SECRET not in json.dumps(await asker.ask(modern(id, "x")))
            assert upstream.seen[-1].headers["authorization"] == f"Bearer {SECRET}"
        assert SECRET.encode() not in asker.heard[0]


async def test_an_error_that_does_not_know_its_request_is_its_answer() -> None:
    error = b'{"jsonrpc":"2.0","id":null,"error":{"code":-32020,"message":"no","data":{"x":1}}}'
    async with asking(answering(error, 400)) as (asker, _):
        answer = await asker.ask(modern("q", "x"))
        assert answer["id"] == "q"
        assert answer["error"] == {"code": -32020, "message": "no", "data": {"x": 1}}


@pytest.mark.parametrize(
    ("status", "body", "reason", "said"),
    [
        (400, b"<html>", "upstream_bad_answer", "HTTP 400"),
        (404, b"{}", "upstream_bad_answer", "no MCP server at its URL"),
        (401, b"", "upstream_unauthorized", "credential"),
        (307, b"", "upstream_bad_answer", "redirects"),
        (429, b"", "upstream_busy", "fewer requests"),
        (502, b"", "upstream_bad_answer", "cannot reach it"),
        (202, b"", "upstream_bad_answer", "no JSON-RPC message"),
        (200, b"[1]", "upstream_bad_answer", "no JSON-RPC message"),
        (200, b'{"jsonrpc":"2.0","id":9,"result":{}}', "upstream_bad_answer", "something else"),
        (200, b'{"jsonrpc":"2.0","id":"1","result":{}}', "upstream_bad_answer", "something else"),
        (200, b'{"jsonrpc":"2.0","id":true,"result":{}}', "upstream_bad_answer", "something else"),
        (200, b'{"jsonrpc":"2.0","method":"x"}', "upstream_bad_answer", "something else"),
        (200, b'{"jsonrpc":"2.0","id":1,"result":"' + b"x" * 70_000 + b'"}', "upstream_bad_answer", "longer"),
    ],
)
async def test_what_is_no_answer_is_a_failure_that_says_what_it_is(
    status: int, body: bytes, reason: str, said: str
) -> None:
    async with asking(answering(body, status), message_limit=64 * 1024) as (asker, _):
        with pytest.raises(UpstreamFailed, match=said) as caught:
            await asker.ask(modern(1, "x"))
        assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("stream", "said"),
    [
        (event(notification("notifications/x")), "before the result"),
        (b"data: nonsense\n\n", "no JSON-RPC message"),
        (b"data: " + b"x" * 70_000, "more than 65536 bytes"),
    ],
)
async def test_a_stream_without_the_answer_is_a_failure(stream: bytes, said: str) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.open_stream()
        await exchange.event(stream, last=True)

    async with asking(script, message_limit=64 * 1024) as (asker, _):
        with pytest.raises(UpstreamFailed, match=said):
            await asker.ask(modern(1, "x"))


async def test_only_notifications_are_passed_on_and_a_stream_may_stay_open_after_the_answer() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.open_stream()
        await exchange.event(event(request(5, "sampling/createMessage")) + event(response(6, {})))
        await exchange.event(b": ping\n\n" + event(notification("notifications/x")))
        await exchange.event(event(response(1, {"ok": True})))
        await exchange.until_gone()

    async with asking(script) as (asker, upstream):
        assert (await asker.ask(modern(1, "x")))["result"] == {"ok": True}
        assert [n["method"] for n in asker.notifications] == ["notifications/x"]
        await eventually(upstream.seen[0].gone.is_set)


async def test_a_refused_notification_is_a_failure() -> None:
    async with asking(answering(b"", 400)) as (asker, _):
        with pytest.raises(UpstreamFailed, match="HTTP 400"):
            await asker.endpoint.notify(notification("x"), always)


async def test_closing_ends_what_runs_with_a_failure() -> None:
    async def script(exchange: Exchange) -> None:
        if exchange.message["id"] == 2:
            await exchange.open_stream()
        await exchange.until_gone()

    async with asking(script) as (asker, upstream):
        waiting = [asyncio.create_task(asker.ask(modern(id, "x"))) for id in (1, 2)]
        await eventually(lambda: len(upstream.seen) == 2)
        await asker.endpoint.close()
        for task in waiting:
            with pytest.raises(UpstreamFailed, match="closed"):
                await task
        with pytest.raises(UpstreamFailed, match="closed"):
            await asker.ask(modern(3, "x"))
        await eventually(lambda: all(exchange.gone.is_set() for exchange in upstream.seen))


async def test_a_connection_is_kept_after_an_answer_in_a_stream() -> None:
    """Or every call would cost a handshake."""
    app = modern_only_app()
    async with served(app) as url, route_to(url + "/mcp") as route:
        asker = Asker(ModernEndpoint(route))
        for _ in range(5):
            await asker.call("count", {"progressToken": "p"}, to=2)
        assert len(app.clients) == 1


async def test_a_connection_is_kept_also_if_its_stream_ends_a_moment_after_the_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("services.gateway.links.modern.LINGER", 5.0)

    async def script(exchange: Exchange) -> None:
        await exchange.open_stream()
        await exchange.event(event(response(1, {})))
        await asyncio.sleep(0.02)
        await exchange.event(b"", last=True)

    async with scripted(script) as upstream, route_to(upstream.url) as route:
        asker = Asker(ModernEndpoint(route))
        await asker.ask(modern(1, "x"))
        pool = route.pools.pool(route.target.origin, "demo")
        kept = pool.take()
        assert kept
        pool.put(kept)
