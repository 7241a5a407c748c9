"""Which eras an upstream speaks: told by its answers, asked for, forgotten."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from services.gateway.connection import UpstreamFailed
from services.gateway.links import spoken_eras
from services.gateway.links.modern import ModernEndpoint
from services.gateway.links.port import Era, always
from services.gateway.links.spoken_eras import Spoken, SpokenEras, Told, learned
from tests.conftest import eventually
from tests.unit.gateway.conftest import Exchange
from tests.unit.gateway.links_made import SECRET, credential, modern, response, route_to, scripted
from tests.unit.gateway.mcp_servers import App, legacy_app, modern_and_legacy_app, modern_only_app, served

HERE = ("demo", "http://upstream.example/mcp")


def error(code: int, data: Any = None, id: Any = 1) -> bytes:
    return json.dumps(
        {"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": "x", "data": data}}
    ).encode()


SUPPORTED = {"requested": "2099-01-01"}
MODERN_ONLY = SUPPORTED | {"supported": ["2026-07-28"]}
BOTH = SUPPORTED | {"supported": ["2026-07-28", "2025-11-25"]}
LEGACY_ONLY = SUPPORTED | {"supported": ["2025-11-25"]}
DISCOVERED = {"supportedVersions": ["2026-07-28"], "resultType": "complete"}


@pytest.mark.parametrize(
    ("asked", "method", "status", "body", "told"),
    [
        # What only the modern era says.
        ("modern", "tools/call", 400, error(-32020), {"modern": True}),
        ("modern", "tools/call", 400, error(-32020, id=None), {"modern": True}),
        ("modern", "tools/call", 400, error(-32021), {"modern": True}),
        ("modern", "tools/call", 400, error(-32022, MODERN_ONLY), {"modern": True}),
        ("modern", "tools/call", 400, error(-32022, BOTH), {"modern": True, "legacy": True}),
        ("modern", "tools/call", 400, error(-32022, LEGACY_ONLY), {"modern": False, "legacy": True}),
        ("modern", "tools/call", 400, error(-32022), {"modern": True}),
        ("modern", "tools/list", 404, error(-32601), {"modern": True}),
        ("modern", "tools/call", 400, error(-32602), {"modern": True}),
        ("modern", "tools/call", 200, response(1, {"resultType": "complete"}), {"modern": True}),
        ("modern", "server/discover", 200, response(1, DISCOVERED), {"modern": True}),
        # What a legacy server says to a modern request.
        ("modern", "tools/call", 400, b"Bad Request", {"modern": False}),
        ("modern", "tools/call", 400, error(-32600), {"modern": False}),
        ("modern", "tools/call", 400, error(-32000, id=None), {"modern": False}),
        ("modern", "tools/call", 400, error(-32602, id=None), {"modern": False}),
        ("modern", "tools/call", 404, b"", {"modern": False}),
        ("modern", "tools/call", 404, error(-32600), {"modern": False}),
        ("modern", "tools/call", 405, b"", {"modern": False}),
        ("modern", "server/discover", 200, error(-32601), {"modern": False}),
        ("modern", "server/discover", 404, error(-32601), {"modern": False}),
        ("modern", "server/discover", 200, response(1, {}), {"modern": False}),
        (
            "modern",
            "server/discover",
            200,
            response(1, {"supportedVersions": ["2025-11-25"]}),
            {"modern": False},
        ),
        # What tells nothing.
        ("modern", "tools/call", 200, response(1, {"content": []}), {}),
        ("modern", "tools/call", 200, error(-32602), {}),
        ("modern", "tools/call", 401, b"", {}),
        ("modern", "tools/call", 429, b"", {}),
        ("modern", "tools/call", 503, error(-32603), {}),
        ("legacy", "tools/call", 200, response(1, {}), {}),
        ("legacy", "initialize", 400, b"", {}),
        ("legacy", "initialize", 400, error(-32602), {}),
        # What is said to `initialize`.
        ("legacy", "initialize", 200, response(1, {"protocolVersion": "2025-11-25"}), {"legacy": True}),
        ("legacy", "initialize", 404, error(-32601), {"modern": True, "legacy": False}),
        ("legacy", "initialize", 400, error(-32020), {"modern": True, "legacy": False}),
        ("legacy", "initialize", 400, error(-32022, MODERN_ONLY), {"modern": True, "legacy": False}),
        ("legacy", "initialize", 400, error(-32022, BOTH), {"modern": True, "legacy": True}),
        # Odd things.
        ("modern", "tools/call", 400, error(-32022, "nonsense"), {"modern": True}),
        ("modern", "tools/call", 400, b'{"jsonrpc":"2.0","id":1,"error":[]}', {"modern": False}),
        ("modern", "tools/call", 200, b"[]", {}),
        ("modern", "tools/call", 200, response(1, []), {}),
    ],
)
def test_an_answer_tells_of_the_eras(asked: Era, method: str, status: int, body: bytes, told: Told) -> None:
    assert learned(asked, method, status, body) == told


def test_what_is_known_follows_from_both_facts() -> None:
    cases: list[tuple[Told, Spoken | None]] = [
        ({"modern": True, "legacy": True}, "both"),
        ({"modern": True, "legacy": False}, "modern"),
        ({"modern": False, "legacy": True}, "legacy"),
        ({"modern": True}, None),
        ({"legacy": True}, None),
        ({}, None),
    ]
    for told, known in cases:
        table = SpokenEras()
        table.saw(*HERE, told)
        assert table.known(*HERE) == known
        assert table.speaks(*HERE, "modern") is told.get("modern")
        assert table.speaks(*HERE, "legacy") is told.get("legacy")
        assert table.known("demo", "http://moved.example/mcp") is None
        assert table.known("other", HERE[1]) is None


def test_a_contradiction_is_forgotten_altogether() -> None:
    table = SpokenEras()
    table.saw(*HERE, {"modern": True, "legacy": True})
    table.saw(*HERE, {"modern": True})
    assert table.known(*HERE) == "both"
    table.saw(*HERE, {"modern": False})
    assert table.known(*HERE) is None
    assert table.speaks(*HERE, "legacy") is None


def test_each_fact_is_kept_for_ten_minutes_after_it_was_last_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(spoken_eras, "elapsed", lambda: now[0])
    table = SpokenEras()
    table.saw(*HERE, {"modern": True, "legacy": True})
    now[0] += 599
    table.saw(*HERE, {"modern": True})
    assert table.known(*HERE) == "both"
    now[0] += 2
    assert table.known(*HERE) is None
    assert table.speaks(*HERE, "modern") is True
    table.saw(*HERE, {"legacy": False})
    assert table.known(*HERE) == "modern", "what has run out contradicts nothing"


def test_the_table_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spoken_eras, "MOST", 4)
    table = SpokenEras()
    for number in range(10):
        table.saw(f"server-{number}", HERE[1], {"modern": True, "legacy": True})
    assert table.known("server-7", HERE[1]) is None
    assert table.known("server-8", HERE[1]) == table.known("server-9", HERE[1]) == "both"


# -- asking --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "spoken"),
    [(modern_only_app, "modern"), (legacy_app, "legacy"), (modern_and_legacy_app, "both")],
)
@pytest.mark.parametrize("json_response", [False, True])
async def test_a_real_server_is_recognized(
    make: Callable[..., App], spoken: Spoken, json_response: bool
) -> None:
    app, table = make(json_response=json_response), SpokenEras()
    async with served(app) as url, route_to(url + "/mcp", credential()) as route:
        assert await table.probe(route) == spoken
        assert table.known("demo", route.url) == spoken
        asked = len(app.requests)
        assert await table.probe(route) == spoken
        assert len(app.requests) == asked, "it is known"
        assert all(headers["authorization"] == f"Bearer {SECRET}" for _, headers in app.requests)
        sessions = sum("mcp-session-id" in headers for _, headers in app.requests)
        deleted = [headers for method, headers in app.requests if method == "DELETE"]
        assert sessions == len(deleted) == (spoken == "both"), "a session that was begun is ended"


async def test_who_asks_at_the_same_time_shares_the_answer() -> None:
    app, table = modern_only_app(), SpokenEras()
    async with served(app) as url, route_to(url + "/mcp") as route:
        first, *others = [asyncio.create_task(table.probe(route)) for _ in range(20)]
        await eventually(lambda: app.requests)
        first.cancel()
        assert set(await asyncio.gather(*others)) == {"modern"}
        assert len(app.requests) == 2


@pytest.mark.parametrize(
    ("status", "reason"),
    [(401, "upstream_unauthorized"), (403, "upstream_bad_answer"), (503, "upstream_bad_answer")],
)
async def test_an_answer_that_tells_nothing_is_a_failure_and_nothing_is_known(
    status: int, reason: str
) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.answer(b"", status)

    table = SpokenEras()
    async with scripted(script) as upstream, route_to(upstream.url) as route:
        for attempt in (1, 2):
            with pytest.raises(UpstreamFailed) as caught:
                await table.probe(route)
            assert caught.value.reason == reason
            assert len(upstream.seen) == attempt, "asked anew"
        assert table.known("demo", route.url) is None


async def test_an_upstream_that_keeps_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spoken_eras, "ASK_WITHIN", 0.2)
    silent = [True]

    async def script(exchange: Exchange) -> None:
        if not silent[0]:
            await exchange.open_stream()
        await exchange.until_gone()

    async with scripted(script) as upstream, route_to(upstream.url) as route:
        for silent[0] in (True, False):
            with pytest.raises(UpstreamFailed) as caught:
                await SpokenEras().probe(route)
            assert caught.value.reason == "upstream_timeout"
            await eventually(upstream.seen[-1].gone.is_set)


async def test_stopping_ends_what_is_asked() -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.until_gone()

    table = SpokenEras()
    async with scripted(script) as upstream, route_to(upstream.url) as route:
        asking = asyncio.create_task(table.probe(route))
        await eventually(lambda: upstream.seen)
        await table.stop()
        await asyncio.wait([asking], timeout=5)
        assert asking.cancelled()
        await eventually(upstream.seen[0].gone.is_set)


async def test_an_endpoint_learns_in_passing_and_notices_a_downgrade() -> None:
    table = SpokenEras()
    downgraded = [False]

    async def script(exchange: Exchange) -> None:
        if downgraded[0]:
            await exchange.answer(b"Bad Request: no valid session", 400)
        else:
            await exchange.result({"resultType": "complete"})

    async with scripted(script) as upstream:
        watcher = table.watcher("demo", upstream.url)
        async with route_to(upstream.url, saw=watcher) as route:
            endpoint = ModernEndpoint(route)
            await endpoint.request(modern(1, "tools/call", name="x"), lambda _: None, always)
            assert table.speaks("demo", upstream.url, "modern") is True
            downgraded[0] = True
            with pytest.raises(UpstreamFailed):
                await endpoint.request(modern(2, "tools/call", name="x"), lambda _: None, always)
            assert table.speaks("demo", upstream.url, "modern") is None
