"""Bridged sessions: whose they are, what is decided and recorded in them, how they end."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from libs.common.control.entries import Org, Revoked, ServerAccess
from libs.common.control.entries import Server as Entry
from services.gateway.bridge import streams
from tests.conftest import eventually
from tests.unit.gateway.bridge_made import (
    ACCESS,
    INITIALIZE,
    Behind,
    ByHand,
    Events,
    behind,
    by_hand,
)
from tests.unit.gateway.conftest import PUBLIC_URL, Exchange, House


@pytest.fixture
async def server(house: House) -> AsyncIterator[Behind]:
    async with behind(house, "sse") as server:
        yield server


@pytest.fixture
async def client(server: Behind) -> AsyncIterator[ByHand]:
    """A client of Streamable HTTP in a session."""
    async with by_hand(server) as client:
        await client.begin()
        yield client


def hosted(house: House) -> list[Any]:
    return house.gateway.bridge.gate.host.register.all()


class Sse:
    """A client of HTTP+SSE that does what the test says."""

    def __init__(self, http: httpx2.AsyncClient, server: Behind, events: Events, endpoint: str) -> None:
        self.http, self.server, self.events = http, server, events
        self.url = server.house.url + endpoint

    async def post(self, message: Any, user: str = "alice", **claims: Any) -> httpx2.Response:
        content = message if isinstance(message, bytes) else json.dumps(message).encode()
        headers = self.server.bearer(user, **claims) | {"content-type": "application/json"}
        return await self.http.post(self.url, content=content, headers=headers)

    async def request(self, method: str, params: Any = None, id: Any = 1) -> httpx2.Response:
        return await self.post({"jsonrpc": "2.0", "id": id, "method": method, "params": params or {}})

    async def begin(self) -> None:
        assert (await self.request("initialize", INITIALIZE, id=0)).status_code == 202
        assert (await self.events.message())["id"] == 0
        await self.post({"jsonrpc": "2.0", "method": "notifications/initialized"})


@asynccontextmanager
async def opened(server: Behind, user: str = "alice") -> AsyncIterator[Sse]:
    async with (
        httpx2.AsyncClient(timeout=20) as http,
        http.stream("GET", server.url + "/sse", headers=server.bearer(user)) as response,
    ):
        assert response.status_code == 200
        events = Events(response)
        first = await events.next()
        assert first["event"] == "endpoint"
        yield Sse(http, server, events, first["data"])


class TestTheOldTransport:
    """HTTP+SSE of 2024-11-05."""

    async def test_the_stream_begins_with_where_to_post(self, server: Behind) -> None:
        async with opened(server) as sse:
            path, _, query = sse.url.removeprefix(server.house.url).partition("?")
            assert path == f"/mcp/{server.server.slug}/sse"
            assert len(query.removeprefix("sessionId=")) > 60  # nobody guesses it

    async def test_a_post_is_accepted_and_answered_on_the_stream(self, server: Behind) -> None:
        async with opened(server) as sse:
            await sse.begin()
            posted = await sse.request("tools/call", {"name": "echo", "arguments": {"text": "x"}}, id="a")
            assert (posted.status_code, posted.content) == (202, b"")
            answer = await sse.events.message()
        assert (answer["id"], answer["result"]["content"][0]["text"]) == ("a", "x")

    async def test_a_post_without_a_session_says_that_get_opens_one(self, server: Behind) -> None:
        headers = server.bearer() | {"content-type": "application/json"}
        message = server.house.message("initialize", INITIALIZE)
        answer = await server.house.client.post(server.url + "/sse", content=message, headers=headers)
        assert (answer.status_code, answer.headers["allow"]) == (405, "GET")

    async def test_without_a_token_the_challenge_names_the_resource_of_this_path(
        self, server: Behind
    ) -> None:
        house = server.house
        answer = await house.client.get(server.url + "/sse")
        metadata = f"/.well-known/oauth-protected-resource/mcp/{server.server.slug}/sse"
        assert answer.status_code == 401
        assert f'resource_metadata="{PUBLIC_URL}{metadata}"' in answer.headers["www-authenticate"]
        document = (await house.client.get(house.url + metadata)).json()
        assert document["resource"] == f"{PUBLIC_URL}/mcp/{server.server.slug}/sse"

    async def test_a_refusal_of_a_request_comes_on_the_stream(self, server: Behind) -> None:
        async with opened(server) as sse:
            await sse.begin()
            posted = await sse.request("tools/call", {"name": "located", "arguments": {}}, id=5)
            assert posted.status_code == 202
            error = (await sse.events.message())["error"]
        assert error["data"]["reason"] == "tool_denied"

    async def test_what_is_no_message_is_refused_at_the_post(self, server: Behind) -> None:
        async with opened(server) as sse:
            twice = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","name":"b"}}'
            assert (await sse.post(twice)).json()["error"]["data"]["reason"] == "duplicate_key"
            assert (await sse.post(b"x" * 70_000)).status_code == 413

    async def test_a_silent_stream_is_kept_alive(
        self, server: Behind, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(streams, "SILENCE", 0.05)
        async with (
            httpx2.AsyncClient() as http,
            http.stream("GET", server.url + "/sse", headers=server.bearer()) as response,
        ):
            assert response.headers["x-accel-buffering"] == "no"
            text = ""
            async for chunk in response.aiter_text():
                text += chunk
                if text.count(": keep-alive") >= 2:
                    break

    async def test_the_stream_is_one_record_and_so_is_each_message(self, server: Behind) -> None:
        async with opened(server) as sse:
            await sse.begin()
            await sse.request("tools/call", {"name": "echo", "arguments": {"text": "x"}})
            await sse.events.message()
        await eventually(lambda: len(server.house.records()) == 4)
        records = {r["method"]: r for r in server.house.records()}
        assert set(records) == {"initialize", "notifications/initialized", "tools/call", "GET"}
        assert {r["status"] for r in records.values()} == {"ok"}
        assert len({r["session"] for m, r in records.items() if m != "GET"}) == 1
        assert json.loads(records["tools/call"]["output"])["content"][0]["text"] == "x"
        assert records["tools/call"]["tool"] == "echo"

    async def test_leaving_ends_the_session_and_what_runs_in_it(self, server: Behind) -> None:
        async with opened(server) as sse:
            await sse.begin()
            await sse.request("tools/call", {"name": "slow", "arguments": {}})
            await eventually(lambda: "slow began" in server.app.did)
        await eventually(lambda: "slow cancelled" in server.app.did)
        await eventually(lambda: not hosted(server.house))
        record = next(r for r in server.house.records() if r["method"] == "tools/call")
        assert record["status"] == "cancelled"


class TestWhoseItIs:
    """A session is its user's, grant's and server's."""

    @pytest.mark.parametrize(
        "stranger", [{"user": "bob"}, {"grant": "another-grant"}], ids=["another user", "another grant"]
    )
    async def test_others_find_no_session_at_its_address(
        self, server: Behind, stranger: dict[str, Any]
    ) -> None:
        async with opened(server) as sse:
            message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": INITIALIZE}
            answer = await sse.post(message, **stranger)
        assert answer.status_code == 404
        assert answer.json()["error"]["data"]["reason"] == "session_foreign"

    async def test_a_session_id_is_good_for_nobody_else(self, client: ByHand) -> None:
        mine = client.headers
        client.headers = client.behind.bearer("bob")
        assert (await client.call("echo", {"text": "x"})).status_code == 404
        client.headers = mine
        id = client.session["mcp-session-id"]
        client.session = {"mcp-session-id": id[:-1] + ("A" if id[-1] != "A" else "Q")}
        assert (await client.call("echo", {"text": "x"})).status_code == 404
        assert client.behind.app.did == []

    async def test_each_message_needs_a_valid_token(self, client: ByHand) -> None:
        client.headers = {"authorization": "Bearer x"}
        assert (await client.call("echo", {"text": "x"})).status_code == 401

    async def test_without_a_session_only_initialize_is_taken(self, server: Behind) -> None:
        async with by_hand(server) as client:
            assert (await client.call("echo", {"text": "x"})).status_code == 400
            assert (await client.http.get(client.url, headers=client.headers)).status_code == 405
            deleted = await client.http.delete(client.url, headers=client.headers)
            assert deleted.status_code == 400


class TestWhatIsDecided:
    async def test_headers_that_contradict_the_body_are_refused(self, client: ByHand) -> None:
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "echo"}}
        answer = await client.post(message, mcp_name="located", mcp_method="tools/call")
        assert answer.status_code == 400
        assert answer.json()["error"]["data"]["reason"] == "header_mismatch"

    async def test_an_id_that_waits_for_its_answer_is_not_taken_twice(self, client: ByHand) -> None:
        slow = asyncio.create_task(client.call("slow", {"seconds": 1}, id=9))
        await eventually(lambda: "slow began" in client.behind.app.did)
        answer = await client.call("echo", {"text": "x"}, id=9)
        assert (answer.status_code, answer.json()["error"]["data"]["reason"]) == (400, "id_in_use")
        assert (await slow).status_code == 200

    async def test_a_call_that_a_change_forbids_ends_and_the_upstream_is_told(self, client: ByHand) -> None:
        slow = asyncio.create_task(client.call("slow", {}, id=9))
        await eventually(lambda: "slow began" in client.behind.app.did)
        await client.behind.allow(ServerAccess(tools={"slow": "deny"}))
        answer = await slow
        assert "tool_denied" in answer.text
        await eventually(lambda: "slow cancelled" in client.behind.app.did)
        record = next(r for r in client.behind.house.records() if r["method"] == "tools/call")
        assert (record["status"], record["reason"]) == ("denied", "tool_denied")
        assert (await client.call("echo", {"text": "x"})).status_code == 200  # the session goes on

    @pytest.mark.parametrize("change", ["server", "organization", "group", "grant"])
    async def test_a_change_ends_open_sessions_of_both_transports(self, server: Behind, change: str) -> None:
        house = server.house
        async with by_hand(server) as client, opened(server) as sse:
            await client.begin()
            await sse.begin()
            async with client.stream() as stream:
                if change == "server":
                    fields = {f: getattr(server.server, f) for f in server.server.__struct_fields__}
                    await house.put(Entry(**fields | {"enabled": False, "version": 9}))
                elif change == "organization":
                    await house.put(Org(version=2, enabled=False))
                elif change == "group":
                    await server.allow(None)
                else:
                    await house.put(Revoked(version=1, grant="grant-alice", at=1))
                with pytest.raises(StopAsyncIteration):
                    await sse.events.next()
                with pytest.raises(StopAsyncIteration):
                    await stream.next()
            await eventually(lambda: not hosted(house))
            streams = [r for r in house.records() if r["method"] == "GET"]
            assert [r["status"] for r in streams] == ["denied", "denied"]
            answer = await client.call("echo", {"text": "late"})
            assert "late" not in str(server.app.did)
            assert answer.status_code in {200, 401, 404}
            assert "result" not in answer.text

    async def test_a_session_ends_when_its_server_moves(self, client: ByHand) -> None:
        server = client.behind.server
        fields = {f: getattr(server, f) for f in server.__struct_fields__}
        await client.behind.house.put(Entry(**fields | {"url": "http://127.0.0.1:1/sse", "version": 2}))
        assert (await client.call("echo", {"text": "x"})).status_code == 404

    async def test_a_call_that_was_cancelled_is_recorded_as_such(self, client: ByHand) -> None:
        slow = asyncio.create_task(client.call("slow", {}, id="s"))
        await eventually(lambda: "slow began" in client.behind.app.did)
        told = await client.notify("notifications/cancelled", {"requestId": "s", "reason": "enough"})
        assert told.status_code == 202
        await slow
        await eventually(lambda: "slow cancelled" in client.behind.app.did)
        records = {r["method"]: r for r in client.behind.house.records()}
        assert records["tools/call"]["status"] == "cancelled"
        assert records["notifications/cancelled"]["status"] == "ok"

    async def test_a_modern_client_that_leaves_has_cancelled(self, server: Behind) -> None:
        async with by_hand(server) as client:
            with pytest.raises(httpx2.ReadTimeout):
                await modern(client, "tools/call", {"name": "slow", "arguments": {}}, timeout=1)
        await eventually(lambda: "slow cancelled" in server.app.did)
        await eventually(lambda: len(server.house.records()) == 1)
        assert server.house.records()[0]["status"] == "cancelled"

    async def test_an_upstream_that_is_down_is_a_failure_that_is_recorded(self, house: House) -> None:
        gone = Entry(version=1, slug="gone", name="Gone", url="http://127.0.0.1:1/sse", transport="sse")
        await house.put(gone)
        found = Behind(house, gone, None)  # type: ignore[arg-type]
        await found.allow(ACCESS)
        async with by_hand(found) as client:
            answer = await client.request("initialize", INITIALIZE)
        assert answer.status_code == 502
        assert answer.json()["error"]["data"]["reason"] == "upstream_unreachable"
        record = await house.record()
        assert (record["status"], record["reason"]) == ("failed", "upstream_unreachable")
        await eventually(lambda: not hosted(house))


class TestStreams:
    async def test_a_message_outside_of_requests_waits_for_the_stream_of_the_session(
        self, client: ByHand
    ) -> None:
        (session,) = hosted(client.behind.house)
        session.message(b'{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}')
        async with client.stream() as events:
            assert (await events.message())["method"] == "notifications/tools/list_changed"

    async def test_a_stream_that_broke_goes_on_after_its_last_event(self, client: ByHand) -> None:
        call = {"name": "count", "arguments": {"to": 5}, "_meta": {"progressToken": "p"}}
        body = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": call}
        async with client.stream("POST", body) as events:
            first = await events.next()
        async with client.stream(last_event_id=first["id"]) as events:
            rest = [json.loads((await events.next())["data"]) for _ in range(5)]
        assert [m["params"]["progress"] for m in rest[:-1]] == [2, 3, 4, 5]
        assert rest[-1]["result"]["content"][0]["text"] == "counted to 5"

    async def test_an_event_that_nobody_knows_cannot_be_gone_on_from(self, client: ByHand) -> None:
        headers = client.headers | client.session | {"last-event-id": "77-1"}
        assert (await client.http.get(client.url, headers=headers)).status_code == 400

    async def test_an_answer_alone_is_json_and_behind_events_it_is_an_event(self, client: ByHand) -> None:
        answer = await client.call("echo", {"text": "x"})
        assert answer.headers["content-type"] == "application/json"
        call = {"name": "count", "arguments": {"to": 1}, "_meta": {"progressToken": "p"}}
        assert (await client.request("tools/call", call)).headers["content-type"] == "text/event-stream"


class TestLimits:
    async def test_one_person_has_so_many_sessions(
        self, server: Behind, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(server.house.gateway.bridge.gate.host, "_per_user", 1)
        async with by_hand(server) as client:
            await client.begin()
            client.session = {}
            answer = await client.request("initialize", INITIALIZE)
        assert answer.status_code == 429

    async def test_a_session_that_nobody_uses_ends_here_and_upstream(
        self, house: House, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async with behind(house, "legacy", bridge="always") as server, by_hand(server) as client:
            await client.begin()
            monkeypatch.setattr(house.gateway.bridge, "_idle", 0.1)
            await eventually(lambda: not hosted(house))
            await eventually(lambda: "DELETE" in [method for method, _ in server.app.requests])
            assert (await client.call("echo", {"text": "x"})).status_code == 404

    async def test_a_client_that_does_not_read_loses_its_session_not_our_memory(
        self, server: Behind, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(server.house.gateway.bridge.gate.host, "_backlog", 2000)
        async with by_hand(server) as client:
            await client.begin()
            call = {"name": "count", "arguments": {"to": 200}, "_meta": {"progressToken": "p"}}
            session = hosted(server.house)[0]
            monkeypatch.setattr(session, "_stream_of", lambda _: session.main)  # which nobody reads
            await client.request("tools/call", call)
            await eventually(lambda: not hosted(server.house))

    async def test_deleting_a_session_ends_it_upstream(self, house: House) -> None:
        async with behind(house, "legacy", bridge="always") as server, by_hand(server) as client:
            await client.begin()
            answer = await client.http.delete(client.url, headers=client.headers | client.session)
            assert answer.status_code == 200
            assert "DELETE" in [method for method, _ in server.app.requests]
            assert (await client.call("echo", {"text": "x"})).status_code == 404
            assert house.records()[-2]["method"] == "DELETE"


class TestFidelity:
    """Nothing is lost or changed on the way through a session."""

    async def test_unknown_members_and_large_integers_arrive_unchanged_both_ways(self, house: House) -> None:
        big = 2**70

        async def script(exchange: Exchange) -> None:
            message = exchange.message
            if message["method"] == "initialize":
                result = {"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {}}
                await exchange.result(result)
            elif "id" not in message:
                await exchange.answer(b"", 202)
            else:
                raw = b'{"jsonrpc":"2.0","id":1,"extra":{"a":%d},"result":{"n":%d,"x":[1.10]}}' % (big, big)
                await exchange.answer(raw)

        house.upstream.script = script
        entry = Entry(version=1, slug="raw", name="Raw", url=house.upstream.url, bridge="always")
        house.gateway.eras.saw("raw", entry.url, {"modern": False, "legacy": True})
        await house.put(entry)
        house.gateway.eras.forget("raw", entry.url)
        house.gateway.eras.saw("raw", entry.url, {"modern": False, "legacy": True})
        found = Behind(house, entry, None)  # type: ignore[arg-type]
        await found.allow(ACCESS)
        async with by_hand(found) as client:
            await client.begin()
            body = (
                b'{ "jsonrpc":"2.0", "id":1,"later":%d,"method":"tools/call","params":{"name":"t","n":%d} }'
            )
            answer = await client.post(body % (big, big))
        assert answer.content == b'{"jsonrpc":"2.0","id":1,"extra":{"a":%d},"result":{"n":%d,"x":[1.10]}}' % (
            big,
            big,
        )
        assert any(exchange.body == body % (big, big) for exchange in house.upstream.seen)


class TestCredentials:
    async def test_a_new_version_is_used_from_the_next_message_on(
        self, house: House, vault: list[Any]
    ) -> None:
        async def script(exchange: Exchange) -> None:
            if exchange.method != "POST":
                await exchange.answer(b"", 405)
            elif "id" not in exchange.message:
                await exchange.answer(b"", 202)
            elif exchange.message["method"] == "initialize":
                await exchange.result({"protocolVersion": "2025-06-18", "capabilities": {}, "serverInfo": {}})
            else:
                await exchange.result({"echo": exchange.headers["x-api-key"]})

        house.upstream.script = script
        entry = Entry(
            version=2, slug="keyed", name="Keyed", url=house.upstream.url, auth="api_key", bridge="always"
        )
        await house.put(entry)
        house.gateway.eras.forget("keyed", entry.url)
        house.gateway.eras.saw("keyed", entry.url, {"modern": False, "legacy": True})
        found = Behind(house, entry, None)  # type: ignore[arg-type]
        await found.allow(ACCESS)
        async with by_hand(found) as client:
            await client.begin()
            answer = await client.call("t")
            assert house.upstream.seen[-1].headers["x-api-key"] == "s3cret-1"
            assert "s3cret" not in answer.text  # what an upstream repeats is blotted out
            await house.store_credential(version=2)
            await client.call("t", id=2)
            assert house.upstream.seen[-1].headers["x-api-key"] == "s3cret-2"
        assert not any("authorization" in exchange.headers for exchange in house.upstream.seen)


async def modern(client: ByHand, method: str, params: Any, timeout: float = 20) -> httpx2.Response:
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params | {"_meta": meta}}
    headers = client.headers | {"mcp-method": method, "mcp-protocol-version": "2026-07-28"}
    if "name" in params:
        headers["mcp-name"] = params["name"]
    return await client.http.post(client.url, json=message, headers=headers, timeout=timeout)


class TestOurOwnWord:
    """What the gateway itself has to say on a stream of a translated upstream."""

    async def test_a_change_of_policy_is_told_on_a_modern_clients_stream(self, house: House) -> None:
        meta = {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
        }
        params = {"notifications": {"toolsListChanged": True}, "_meta": meta}
        body = {"jsonrpc": "2.0", "id": 3, "method": "subscriptions/listen", "params": params}
        headers = {"mcp_method": "subscriptions/listen", "mcp_protocol_version": "2026-07-28"}
        async with (
            behind(house, "legacy") as server,
            by_hand(server) as client,
            client.stream("POST", body, **headers) as events,
        ):
            first = await events.message()
            assert first["method"] == "notifications/subscriptions/acknowledged"
            await server.allow(ServerAccess(tools={"echo": "deny"}))
            async with asyncio.timeout(10):
                told = await events.message()
        assert told["method"] == "notifications/tools/list_changed"
        assert told["params"]["_meta"] == {"io.modelcontextprotocol/subscriptionId": 3}
