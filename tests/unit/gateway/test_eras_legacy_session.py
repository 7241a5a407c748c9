"""A legacy client's session on a modern upstream written by hand; test_eras_real_servers.py has real ones."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from mcp_types.methods import (
    CLIENT_REQUESTS,
    validate_client_request,
    validate_client_result,
    validate_server_result,
)

from services.gateway.connection import UpstreamFailed
from services.gateway.eras import listening
from services.gateway.eras.legacy_over_modern import LegacyOverModern, Limits
from services.gateway.links.port import Check, Emit, always
from tests.conftest import eventually

P = "io.modelcontextprotocol/"
CAPABILITIES = {
    "tools": {"listChanged": True},
    "resources": {"subscribe": True, "listChanged": True},
}
DISCOVERED = {
    "resultType": "complete",
    "supportedVersions": ["2026-07-28"],
    "capabilities": CAPABILITIES,
    "ttlMs": 0,
    "cacheScope": "private",
}
CLIENT = {"name": "c", "version": "1"}
ALL = {
    "elicitation": {"form": {}, "url": {}},
    "sampling": {},
    "roots": {"listChanged": True},
    "tasks": {"list": {}},
}
FORM = {
    "method": "elicitation/create",
    "params": {"message": "?", "requestedSchema": {"type": "object", "properties": {}}},
}
URL = {"method": "elicitation/create", "params": {"mode": "url", "message": "?", "url": "https://a.example"}}
ACCEPTED = {"action": "accept", "content": {"n": 1}}

Told = Callable[[dict[str, Any]], None]


class Refused(Exception):
    """The upstream answers with this error."""


class Upstream:
    """A modern upstream. What a method answers is in `answers`; `listen` streams stay open until `drop`."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.notified: list[dict[str, Any]] = []
        self.cancelled: list[str] = []
        self.listeners: dict[Any, tuple[Told, asyncio.Future[dict[str, Any]]]] = {}
        self.honours: Callable[[dict[str, Any]], dict[str, Any]] = lambda wanted: wanted
        self.closed = False
        self.answers: dict[str, Callable[[dict[str, Any], Told], Awaitable[dict[str, Any]]]] = {
            "server/discover": self._discover,
            "subscriptions/listen": self._listen,
        }

    async def request(self, message: bytes, emit: Emit, check: Check) -> bytes:
        check()
        request = json.loads(message)
        if (request["method"], "2026-07-28") in CLIENT_REQUESTS:
            validate_client_request(request["method"], "2026-07-28", request["params"])
        assert all(request["id"] != before["id"] for before in self.asked), (
            "each request has an id of its own"
        )
        self.asked.append(request)
        answer = self.answers[request["method"]]
        try:
            outcome = {"result": await answer(request, lambda told: emit(json.dumps(told).encode()))}
        except Refused as refused:
            outcome = {"error": refused.args[0]}
        except asyncio.CancelledError:
            self.cancelled.append(request["method"])
            raise
        return json.dumps({"jsonrpc": "2.0", "id": request["id"], **outcome}).encode()

    async def notify(self, message: bytes, check: Check) -> None:
        check()
        self.notified.append(json.loads(message))

    async def close(self) -> None:
        self.closed = True

    async def _discover(self, request: dict[str, Any], tell: Told) -> dict[str, Any]:
        return DISCOVERED

    async def _listen(self, request: dict[str, Any], tell: Told) -> dict[str, Any]:
        id = request["id"]
        ended: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self.listeners[id] = (tell, ended)
        honoured = self.honours(request["params"]["notifications"])
        params = {"_meta": {P + "subscriptionId": id}, "notifications": honoured}
        tell({"jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged", "params": params})
        try:
            return await ended
        finally:
            del self.listeners[id]

    def tell(self, method: str, **params: Any) -> None:
        """A notification on every open stream."""
        for id, (tell, _) in self.listeners.items():
            marked = params | {"_meta": {P + "subscriptionId": id}}
            tell({"jsonrpc": "2.0", "method": method, "params": marked})

    def drop(self) -> None:
        """End all streams gracefully."""
        for _, ended in self.listeners.values():
            ended.set_result({"resultType": "complete"})

    def of(self, method: str) -> list[dict[str, Any]]:
        return [request for request in self.asked if request["method"] == method]

    @property
    def filters(self) -> list[dict[str, Any]]:
        """What was listened to, each time."""
        return [request["params"]["notifications"] for request in self.of("subscriptions/listen")]


class Client:
    """A legacy client, in front of `upstream`."""

    def __init__(self, upstream: Upstream, **options: Any) -> None:
        self.messages: list[dict[str, Any]] = []
        self.failed: dict[bytes, UpstreamFailed] = {}
        self.upstream = upstream
        self.session = LegacyOverModern(
            upstream, self._take, self._closed, self.failed.__setitem__, name="slug", **options
        )

    def _take(self, message: bytes) -> None:
        self.messages.append(json.loads(message))

    def _closed(self, failure: UpstreamFailed) -> None:
        raise AssertionError("no upstream can end it")

    async def send(self, check: Check = always, **message: Any) -> None:
        async with asyncio.timeout(5):
            await self.session.send(json.dumps({"jsonrpc": "2.0", **message}).encode(), check)

    async def ask(self, method: str, id: Any = "a", check: Check = always, **params: Any) -> dict[str, Any]:
        await self.send(check, id=id, method=method, params=params)
        return await self.answer(id)

    async def answer(self, id: Any) -> dict[str, Any]:
        def found() -> list[dict[str, Any]]:
            return [m for m in self.messages if "method" not in m and m["id"] == id]

        await eventually(found)
        [answer] = found()
        self.messages.remove(answer)
        return answer

    async def begin(
        self, capabilities: dict[str, Any] | None = None, version: str = "2025-11-25"
    ) -> dict[str, Any]:
        given = ALL if capabilities is None else capabilities
        answer = await self.ask("initialize", protocolVersion=version, capabilities=given, clientInfo=CLIENT)
        if "result" in answer:
            validate_server_result("initialize", version, answer["result"])
        await self.send(method="notifications/initialized")
        return answer

    def of(self, method: str) -> list[dict[str, Any]]:
        return [message for message in self.messages if message.get("method") == method]

    async def asked(self, method: str, count: int = 1) -> list[dict[str, Any]]:
        await eventually(lambda: len(self.of(method)) >= count)
        return self.of(method)


@pytest.fixture
def upstream() -> Upstream:
    return Upstream()


@pytest.fixture
async def client(upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Client]:
    monkeypatch.setattr(listening, "FIRST_DELAY", 0.01)
    client = Client(upstream)
    yield client
    await client.session.close()
    await client.session.close()
    assert upstream.closed
    assert not upstream.listeners, "nothing is left open"


def returns(result: dict[str, Any]) -> Callable[[dict[str, Any], Told], Awaitable[dict[str, Any]]]:
    async def answer(request: dict[str, Any], tell: Told) -> dict[str, Any]:
        return {"resultType": "complete"} | result

    return answer


def asks(*rounds: dict[str, Any]) -> Callable[[dict[str, Any], Told], Awaitable[dict[str, Any]]]:
    """Answers with `rounds` in order, each an input_required result, and then with what it was told last."""
    left = list(rounds)

    async def answer(request: dict[str, Any], tell: Told) -> dict[str, Any]:
        if left:
            return {"resultType": "input_required"} | left.pop(0)
        said = {
            key: request["params"][key]
            for key in ("inputResponses", "requestState")
            if key in request["params"]
        }
        return {"resultType": "complete", "content": [], "said": said}

    return answer


async def waits(request: dict[str, Any], tell: Told) -> dict[str, Any]:
    await asyncio.Event().wait()
    raise AssertionError


class TestBeginning:
    async def test_initialize_is_answered_from_discovery(self, client: Client) -> None:
        result = (await client.begin(version="2024-11-05"))["result"]
        assert result == {
            "protocolVersion": "2024-11-05",
            "capabilities": CAPABILITIES,
            "serverInfo": {"name": "slug", "version": ""},
        }

    async def test_the_upstream_learns_who_asks_but_not_of_what_only_a_legacy_client_can(
        self, client: Client
    ) -> None:
        await client.begin()
        meta = client.upstream.of("server/discover")[0]["params"]["_meta"]
        assert meta[P + "clientInfo"] == CLIENT
        assert meta[P + "clientCapabilities"].keys() == ALL.keys() - {"tasks"}

    async def test_nothing_is_served_before(self, client: Client) -> None:
        assert (await client.ask("tools/list"))["error"]["code"] == -32600
        assert client.upstream.asked == []
        assert (await client.ask("ping"))["result"] == {}

    async def test_a_server_that_refuses_is_quoted(self, client: Client) -> None:
        async def refuse(request: dict[str, Any], tell: Told) -> dict[str, Any]:
            raise Refused({"code": -32022, "message": "no such version", "data": {"supported": []}})

        client.upstream.answers["server/discover"] = refuse
        assert (await client.begin())["error"]["message"] == "no such version"

    async def test_what_has_no_counterpart_is_refused(self, client: Client) -> None:
        await client.begin()
        assert (await client.ask("tasks/list"))["error"]["code"] == -32601
        assert (await client.ask("server/discover"))["error"]["code"] == -32601


class TestRequests:
    async def test_the_clients_id_comes_back_whatever_it_is(self, client: Client) -> None:
        await client.begin()
        client.upstream.answers["tools/list"] = returns({"tools": []})
        for id in ("text", 2**70, 0):
            assert (await client.ask("tools/list", id=id))["result"] == {"tools": []}

    async def test_unknown_methods_and_notifications_pass(self, client: Client) -> None:
        await client.begin()
        client.upstream.answers["vendor/do"] = returns({"n": 2**70})
        assert (await client.ask("vendor/do", x=2**70))["result"] == {"n": 2**70}
        assert client.upstream.of("vendor/do")[0]["params"]["x"] == 2**70
        await client.send(method="notifications/vendor", params={"x": 1})
        assert client.upstream.notified == [
            {"jsonrpc": "2.0", "method": "notifications/vendor", "params": {"x": 1}}
        ]

    @pytest.mark.parametrize("method", ["notifications/roots/list_changed", "notifications/progress"])
    async def test_notifications_without_a_counterpart_stay_here(self, client: Client, method: str) -> None:
        await client.begin()
        await client.send(method=method, params={"progressToken": 1, "progress": 1})
        assert client.upstream.notified == []

    async def test_notifications_come_before_the_answer(self, client: Client) -> None:
        await client.begin()

        async def progress(request: dict[str, Any], tell: Told) -> dict[str, Any]:
            token = request["params"]["_meta"]["progressToken"]
            for n in range(3):
                params = {"progressToken": token, "progress": n}
                tell({"jsonrpc": "2.0", "method": "notifications/progress", "params": params})
            return {"resultType": "complete", "content": []}

        client.upstream.answers["tools/call"] = progress
        await client.ask("tools/call", name="t", _meta={"progressToken": 2**70})
        told = [message["params"] for message in client.of("notifications/progress")]
        assert told == [{"progressToken": 2**70, "progress": n} for n in range(3)]

    async def test_the_log_level_goes_with_each_request(self, client: Client) -> None:
        await client.begin()
        client.upstream.answers["tools/list"] = returns({"tools": []})
        await client.ask("tools/list")
        assert (await client.ask("logging/setLevel", level="debug"))["result"] == {}
        await client.ask("tools/list")
        levels = [
            request["params"]["_meta"].get(P + "logLevel") for request in client.upstream.of("tools/list")
        ]
        assert levels == [None, "debug"]

    async def test_a_log_level_that_is_none_is_refused(self, client: Client) -> None:
        await client.begin()
        assert (await client.ask("logging/setLevel", level="loud"))["error"]["code"] == -32602

    async def test_a_cancelled_request_is_cancelled_upstream_and_not_answered(self, client: Client) -> None:
        await client.begin()
        client.upstream.answers["tools/call"] = waits
        await client.send(id=1, method="tools/call", params={"name": "t"})
        await client.send(method="notifications/cancelled", params={"requestId": 1})
        await eventually(lambda: client.upstream.cancelled == ["tools/call"])
        await client.send(method="notifications/cancelled", params={"requestId": "unknown"})
        assert (await client.ask("ping", id=2))["result"] == {}
        assert not [message for message in client.messages if message.get("id") == 1]

    async def test_an_id_in_use_is_refused(self, client: Client) -> None:
        await client.begin()
        client.upstream.answers["tools/call"] = waits
        await client.send(id=1, method="tools/call", params={"name": "t"})
        assert (await client.ask("ping", id=1))["error"]["code"] == -32600

    async def test_more_requests_than_the_limit_are_refused(self, upstream: Upstream) -> None:
        client = Client(upstream, limits=Limits(requests=2))
        await client.begin({})
        client.upstream.answers["tools/call"] = waits
        for id in (1, 2):
            await client.send(id=id, method="tools/call", params={"name": "t"})
        with pytest.raises(UpstreamFailed) as failed:
            await client.send(id=3, method="tools/call", params={"name": "t"})
        assert failed.value.reason == "upstream_busy"
        await client.session.close()
        assert upstream.cancelled.count("tools/call") == 2

    async def test_a_closed_session_takes_nothing(self, client: Client) -> None:
        await client.begin()
        await client.session.close()
        with pytest.raises(UpstreamFailed):
            await client.send(id=1, method="tools/list")


class TestFailures:
    async def test_what_the_check_forbids_does_not_leave(self, client: Client) -> None:
        await client.begin()

        def forbid() -> None:
            raise UpstreamFailed("tool_denied", "no")

        with pytest.raises(UpstreamFailed, match="no"):
            await client.send(forbid, id=1, method="tools/call", params={"name": "t"})
        assert client.upstream.of("tools/call") == []
        assert client.failed == {}

    async def test_what_else_the_endpoint_raises_is_raised_to_the_sender(self, client: Client) -> None:
        """Such as that the caller's token holds no longer."""
        await client.begin()

        async def asked(message: bytes, emit: Emit, check: Check) -> bytes:
            raise PermissionError("no token")

        client.upstream.request = asked  # type: ignore[method-assign]
        for method in ("tools/call", "resources/subscribe"):
            with pytest.raises(PermissionError):
                await client.send(id=1, method=method, params={"name": "t", "uri": "a://b"})

    async def test_a_request_that_was_sent_and_broke_is_reported(self, client: Client) -> None:
        await client.begin()

        async def breaks(request: dict[str, Any], tell: Told) -> dict[str, Any]:
            await asyncio.sleep(0)
            raise UpstreamFailed("upstream_broke_off", "gone")

        client.upstream.answers["tools/call"] = breaks
        await client.send(id="x", method="tools/call", params={"name": "t"})
        await eventually(lambda: client.failed)
        assert client.failed[b'"x"'].detail == "gone"

    @pytest.mark.parametrize(
        ("method", "result"),
        [
            ("tools/call", {"resultType": "task"}),
            ("tools/list", {"resultType": "input_required", "requestState": "s"}),
            ("tools/list", {"resultType": "complete", "tools": 1}),
            ("tools/list", {"resultType": "complete", "tools": [], "_meta": 1}),
        ],
    )
    async def test_an_answer_that_no_client_could_read_is_a_failure(
        self, client: Client, method: str, result: dict[str, Any]
    ) -> None:
        await client.begin()
        client.upstream.answers[method] = returns(result)
        await client.send(id=1, method=method, params={"name": "t"})
        await eventually(lambda: client.failed)
        assert client.failed[b"1"].reason == "upstream_bad_answer"


class TestQuestions:
    async def test_the_client_is_asked_and_the_request_repeated_with_its_answers(
        self, client: Client
    ) -> None:
        await client.begin()
        client.upstream.answers["tools/call"] = asks(
            {"inputRequests": {"who": FORM, "roots": {"method": "roots/list"}}, "requestState": "opaque"}
        )
        await client.send(id=1, method="tools/call", params={"name": "t", "x": 2**70})
        [asked] = await client.asked("elicitation/create")
        [roots] = await client.asked("roots/list")
        assert asked["params"] == FORM["params"]
        await client.send(id=roots["id"], result={"roots": []})
        await client.send(id=asked["id"], result=ACCEPTED)
        said = (await client.answer(1))["result"]["said"]
        assert said == {"inputResponses": {"who": ACCEPTED, "roots": {"roots": []}}, "requestState": "opaque"}
        assert [request["params"]["x"] for request in client.upstream.of("tools/call")] == [2**70, 2**70]

    async def test_several_rounds(self, client: Client) -> None:
        await client.begin()
        client.upstream.answers["tools/call"] = asks(
            {"inputRequests": {"1": FORM}, "requestState": "one"},
            {"requestState": "two"},  # try again, nothing to answer
            {"inputRequests": {"2": FORM}},
        )
        await client.send(id=1, method="tools/call", params={"name": "t"})
        for count in (1, 2):
            asked = (await client.asked("elicitation/create", count))[-1]
            await client.send(id=asked["id"], result=ACCEPTED)
        assert (await client.answer(1))["result"]["said"] == {"inputResponses": {"2": ACCEPTED}}
        states = [request["params"].get("requestState") for request in client.upstream.of("tools/call")]
        assert states == [None, "one", "two", None]

    async def test_a_server_that_never_stops_asking_is_given_up(self, upstream: Upstream) -> None:
        client = Client(upstream, limits=Limits(rounds=2))
        await client.begin()
        upstream.answers["tools/call"] = asks(*[{"requestState": "s"}] * 9)
        await client.send(id=1, method="tools/call", params={"name": "t"})
        await eventually(lambda: client.failed)
        assert len(upstream.of("tools/call")) == 3
        await client.session.close()

    async def test_the_check_holds_in_each_round(self, client: Client) -> None:
        await client.begin()
        client.upstream.answers["tools/call"] = asks({"inputRequests": {"1": FORM}})
        allowed = [True]

        def check() -> None:
            if not allowed.pop():
                raise UpstreamFailed("tool_denied", "not any more")

        await client.send(check, id=1, method="tools/call", params={"name": "t"})
        [asked] = await client.asked("elicitation/create")
        allowed.append(False)
        await client.send(id=asked["id"], result=ACCEPTED)
        await eventually(lambda: client.failed)
        assert client.failed[b"1"].reason == "tool_denied"
        assert len(client.upstream.of("tools/call")) == 1

    async def test_a_url_gets_the_name_that_it_needed(self, client: Client) -> None:
        await client.begin()
        client.upstream.answers["tools/call"] = asks({"inputRequests": {"1": URL}})
        await client.send(id=1, method="tools/call", params={"name": "t"})
        [asked] = await client.asked("elicitation/create")
        assert asked["params"].pop("elicitationId")
        assert asked["params"] == URL["params"]
        await client.send(id=asked["id"], result={"action": "accept"})
        validate_client_result("elicitation/create", "2025-11-25", {"action": "accept"})
        await client.answer(1)

    async def test_what_the_client_did_not_declare_is_not_asked(self, client: Client) -> None:
        await client.begin({"sampling": {}})
        client.upstream.answers["tools/call"] = asks({"inputRequests": {"1": FORM}})
        assert "elicitation" in (await client.ask("tools/call", name="t"))["error"]["message"]
        assert client.of("elicitation/create") == []

    async def test_a_server_may_ask_so_many_questions_and_no_more(self, client: Client) -> None:
        await client.begin()
        client.upstream.answers["tools/call"] = asks({"inputRequests": {str(n): FORM for n in range(65)}})
        await client.send(id=1, method="tools/call", params={"name": "t"})
        await eventually(lambda: client.failed)
        assert client.of("elicitation/create") == []

    async def test_an_error_of_the_client_ends_the_request_and_its_other_questions(
        self, client: Client
    ) -> None:
        await client.begin()
        client.upstream.answers["tools/call"] = asks({"inputRequests": {"1": FORM, "2": URL}})
        await client.send(id=1, method="tools/call", params={"name": "t"})
        first, second = await client.asked("elicitation/create", 2)
        refusal = {"code": -1, "message": "User rejected"}
        await client.send(id=first["id"], error=refusal)
        assert (await client.answer(1))["error"] == refusal
        [withdrawn] = client.of("notifications/cancelled")
        assert withdrawn["params"]["requestId"] == second["id"]
        await client.send(id=second["id"], result=ACCEPTED)  # too late, and harmless

    async def test_a_client_that_does_not_answer_is_not_waited_for(self, upstream: Upstream) -> None:
        client = Client(upstream, limits=Limits(answer=0.05))
        await client.begin()
        upstream.answers["tools/call"] = asks({"inputRequests": {"1": FORM}})
        answer = await client.ask("tools/call", name="t")
        assert "did not answer" in answer["error"]["message"]
        assert len(client.of("notifications/cancelled")) == 1
        await client.session.close()

    async def test_cancelling_the_request_withdraws_its_questions(self, client: Client) -> None:
        await client.begin()
        client.upstream.answers["tools/call"] = asks({"inputRequests": {"1": FORM}})
        await client.send(id=1, method="tools/call", params={"name": "t"})
        [asked] = await client.asked("elicitation/create")
        await client.send(method="notifications/cancelled", params={"requestId": 1})
        [withdrawn] = await client.asked("notifications/cancelled")
        assert withdrawn["params"]["requestId"] == asked["id"]


class TestListening:
    LISTS = {"toolsListChanged": True, "resourcesListChanged": True}  # noqa: RUF012

    async def test_changes_of_lists_are_heard_without_asking(self, client: Client) -> None:
        await client.begin()
        await eventually(lambda: client.upstream.listeners)
        client.upstream.tell("notifications/tools/list_changed")
        assert client.of("notifications/tools/list_changed") == [
            {"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}
        ]
        assert client.upstream.filters == [self.LISTS]

    async def test_a_server_without_such_changes_is_not_listened_to(self, client: Client) -> None:
        client.upstream.answers["server/discover"] = returns(DISCOVERED | {"capabilities": {"tools": {}}})
        await client.begin()
        await client.ask("ping")
        assert client.upstream.filters == []

    async def test_a_subscription_changes_what_is_listened_to(self, client: Client) -> None:
        await client.begin()
        for uri in ("a://b", "c://d"):
            assert (await client.ask("resources/subscribe", uri=uri))["result"] == {}
        client.upstream.tell("notifications/resources/updated", uri="a://b", x=2**70)
        client.upstream.tell("notifications/resources/updated", uri="e://f")
        assert [m["params"] for m in client.of("notifications/resources/updated")] == [
            {"uri": "a://b", "x": 2**70}
        ]
        assert (await client.ask("resources/unsubscribe", uri="a://b"))["result"] == {}
        await eventually(lambda: len(client.upstream.listeners) == 1)
        assert client.upstream.filters[-3:] == [
            self.LISTS | {"resourceSubscriptions": ["a://b"]},
            self.LISTS | {"resourceSubscriptions": ["a://b", "c://d"]},
            self.LISTS | {"resourceSubscriptions": ["c://d"]},
        ]

    async def test_a_subscription_that_is_not_honoured_is_an_error(self, client: Client) -> None:
        client.upstream.honours = lambda wanted: {"toolsListChanged": True}
        await client.begin()
        assert (await client.ask("resources/subscribe", uri="a://b"))["error"]["code"] == -32601
        assert (await client.ask("resources/subscribe"))["error"]["code"] == -32602

    async def test_a_stream_that_ends_is_opened_again_and_all_is_said_to_have_changed(
        self, client: Client
    ) -> None:
        await client.begin()
        await client.ask("resources/subscribe", uri="a://b")
        client.upstream.drop()
        await eventually(lambda: len(client.of("notifications/resources/updated")) == 1)
        assert len(client.of("notifications/tools/list_changed")) == 1
        await eventually(lambda: client.upstream.listeners)

    async def test_an_upstream_that_cannot_be_reached_is_tried_again(self, client: Client) -> None:
        listen, attempts = client.upstream.answers["subscriptions/listen"], []

        async def fails_twice(request: dict[str, Any], tell: Told) -> dict[str, Any]:
            attempts.append(request)
            if len(attempts) < 3:
                raise UpstreamFailed("upstream_unreachable", "down")
            return await listen(request, tell)

        client.upstream.answers["subscriptions/listen"] = fails_twice
        await client.begin()
        await eventually(lambda: client.upstream.listeners)
        assert len(attempts) == 3

    async def test_a_server_that_lets_nobody_listen_is_left_alone(self, client: Client) -> None:
        async def refuse(request: dict[str, Any], tell: Told) -> dict[str, Any]:
            raise Refused({"code": -32601, "message": "no"})

        client.upstream.answers["subscriptions/listen"] = refuse
        await client.begin()
        assert (await client.ask("resources/subscribe", uri="a://b"))["error"] == {
            "code": -32601,
            "message": "no",
        }
        assert (await client.ask("ping"))["result"] == {}
