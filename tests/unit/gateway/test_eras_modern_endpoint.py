"""A modern client's endpoint on a legacy upstream, which is written by hand here."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from mcp_types.methods import CLIENT_REQUESTS, validate_client_request, validate_server_result

from services.gateway.connection import UpstreamFailed
from services.gateway.eras.held import prefix_of
from services.gateway.eras.modern_over_legacy import Limits, ModernOverLegacy
from services.gateway.eras.session_pool import SessionLimits
from services.gateway.links.port import Check, Emit, OnClosed, OnFailed, always
from tests.conftest import eventually

P = "io.modelcontextprotocol/"
ALL: dict[str, Any] = {
    "elicitation": {"form": {}, "url": {}},
    "sampling": {},
    "roots": {},
    "extensions": {P + "tasks": {}},
}
FORM = {"message": "?", "requestedSchema": {"type": "object", "properties": {}}}
ACCEPTED = {"action": "accept", "content": {"n": 2**70}}
CAPABILITIES = {
    "tools": {"listChanged": True},
    "resources": {"subscribe": True},
    "logging": {},
    "tasks": {"list": {}},
}
BROKEN = UpstreamFailed("upstream_broke_off", "gone")

Answer = Callable[["Session", dict[str, Any]], Awaitable[Any]]


class Error(Exception):
    """The upstream answers with this error."""


class Session:
    """One session at the upstream; it keeps what it got, and who asks it for something can wait."""

    def __init__(self, server: "Server", on_message: Emit, on_closed: OnClosed, on_failed: OnFailed) -> None:
        self.server, self.on_message, self.on_closed, self.on_failed = (
            server,
            on_message,
            on_closed,
            on_failed,
        )
        self.got: list[dict[str, Any]] = []
        self.running: dict[Any, asyncio.Task[None]] = {}
        self.waiting: dict[Any, asyncio.Future[dict[str, Any]]] = {}
        self.closed = False
        self.held_up = 0  # messages that wait for the connection
        self._ids = itertools.count(1)

    async def start(self) -> None:
        await self.server.start()

    async def send(self, message: bytes, check: Check) -> None:
        if self.server.connecting:
            self.held_up += 1
            await self.server.connecting.wait()
        check()
        if self.closed:
            raise BROKEN
        received = json.loads(message)
        self.got.append(received)
        if "method" not in received:
            self.waiting.pop(received["id"]).set_result(received)
        elif "id" in received:
            if (received["method"], "2025-11-25") in CLIENT_REQUESTS:
                validate_client_request(received["method"], "2025-11-25", received.get("params"))
            self.running[received["id"]] = asyncio.create_task(self._serve(received))
        elif received["method"] == "notifications/cancelled":
            self.running[received["params"]["requestId"]].cancel()

    async def close(self) -> None:
        self.closed = True
        for task in self.running.values():
            task.cancel()

    async def _serve(self, request: dict[str, Any]) -> None:
        try:
            answer = {"result": await self.server.answers[request["method"]](self, request)}
        except Error as error:
            answer = {"error": error.args[0]}
        self.tell(id=request["id"], **answer)

    def tell(self, **message: Any) -> None:
        self.on_message(json.dumps({"jsonrpc": "2.0", **message}).encode())

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """The client's response."""
        id = f"q{next(self._ids)}"
        answered = self.waiting[id] = asyncio.get_running_loop().create_future()
        self.tell(id=id, method=method, params=params)
        response: dict[str, Any] = await answered
        return response

    def lose(self, failure: UpstreamFailed = BROKEN) -> None:
        self.closed = True
        self.on_closed(failure)

    def of(self, method: str) -> list[dict[str, Any]]:
        return [message for message in self.got if message.get("method") == method]


class Server:
    """A legacy upstream. What a method answers is in `answers`."""

    def __init__(self) -> None:
        self.sessions: list[Session] = []
        self.down: UpstreamFailed | None = None
        self.connecting: asyncio.Event | None = None  # messages leave when it is set
        self.version = "2025-11-25"
        self.answers: dict[str, Answer] = {
            "initialize": self._initialize,
            "logging/setLevel": nothing,
            "resources/subscribe": nothing,
            "resources/unsubscribe": nothing,
        }

    def open(self, on_message: Emit, on_closed: OnClosed, on_failed: OnFailed) -> Session:
        self.sessions.append(Session(self, on_message, on_closed, on_failed))
        return self.sessions[-1]

    async def start(self) -> None:
        if self.down:
            raise self.down

    async def _initialize(self, session: Session, request: dict[str, Any]) -> dict[str, Any]:
        info = {"name": "s", "version": "1"}
        return {"protocolVersion": self.version, "capabilities": CAPABILITIES, "serverInfo": info, "x": 2**70}

    def of(self, method: str) -> list[dict[str, Any]]:
        return [message for session in self.sessions for message in session.of(method)]

    @property
    def open_sessions(self) -> list[Session]:
        return [session for session in self.sessions if not session.closed]


async def nothing(session: Session, request: dict[str, Any]) -> dict[str, Any]:
    return {}


async def lists(session: Session, request: dict[str, Any]) -> Any:
    return {"tools": []}


async def tool(session: Session, request: dict[str, Any]) -> Any:
    return {"content": []}


async def waits(session: Session, request: dict[str, Any]) -> dict[str, Any]:
    await asyncio.Event().wait()
    raise AssertionError


async def asks(session: Session, request: dict[str, Any]) -> dict[str, Any]:
    """A tool that asks for a form, and gives back what it was answered."""
    answered = await session.ask("elicitation/create", **FORM)
    return {"content": [], "answered": answered.get("result", answered.get("error"))}


class Client:
    """A modern client. All its responses have to be valid."""

    def __init__(self, endpoint: ModernOverLegacy, capabilities: dict[str, Any] = ALL) -> None:
        self.endpoint, self.capabilities = endpoint, capabilities
        self.told: list[dict[str, Any]] = []
        self._ids = itertools.count(1)

    async def ask(self, method: str, check: Check = always, **params: Any) -> dict[str, Any]:
        """The response, without its envelope."""
        meta = {
            P + "protocolVersion": "2026-07-28",
            P + "clientCapabilities": self.capabilities,
            P + "clientInfo": {"name": "c", "version": "1"},
        } | params.pop("_meta", {})
        id = next(self._ids)
        request = {"jsonrpc": "2.0", "id": id, "method": method, "params": params | {"_meta": meta}}
        raw = await self.endpoint.request(
            json.dumps(request).encode(), lambda told: self.told.append(json.loads(told)), check
        )
        response: dict[str, Any] = json.loads(raw)
        assert response.pop("id") == id
        if "result" in response and (method, "2026-07-28") in CLIENT_REQUESTS:
            validate_server_result(method, "2026-07-28", response["result"])
        return response

    async def call(self, tool: str = "t", check: Check = always, **params: Any) -> dict[str, Any]:
        response = await self.ask("tools/call", check, name=tool, **params)
        result: dict[str, Any] = response["result"]
        return result

    async def retry(
        self, asked: dict[str, Any], answer: Any = ACCEPTED, check: Check = always, **params: Any
    ) -> dict[str, Any]:
        """Call again, with `answer` to all that was asked."""
        answers = dict.fromkeys(asked["inputRequests"], answer)
        return await self.call(
            check=check, **{"inputResponses": answers, "requestState": asked["requestState"]} | params
        )

    async def error(self, method: str, **params: Any) -> dict[str, Any]:
        response = await self.ask(method, **params)
        error: dict[str, Any] = response["error"]
        return error

    def begin(self, work: Any) -> "asyncio.Task[Any]":
        return asyncio.create_task(work)


@pytest.fixture
def server() -> Server:
    return Server()


def limited(server: Server, **limits: Any) -> Client:
    sessions = SessionLimits(**limits.pop("sessions", {}))
    return Client(ModernOverLegacy(server.open, "replica.1", Limits(sessions=sessions, **limits)))


@pytest.fixture
async def client(server: Server) -> AsyncIterator[Client]:
    client = limited(server)
    yield client
    await client.endpoint.close()
    await client.endpoint.close()
    assert client.endpoint.idle
    assert not server.open_sessions


class TestSessions:
    async def test_a_session_begins_with_what_the_client_says_of_itself(
        self, server: Server, client: Client
    ) -> None:
        await client.ask("server/discover")
        [session] = server.sessions
        assert session.got == [
            {
                "jsonrpc": "2.0",
                "id": 1,
                "method": "initialize",
                "params": {
                    "protocolVersion": "2025-11-25",
                    "capabilities": ALL | {"extensions": {}},
                    "clientInfo": {"name": "c", "version": "1"},
                },
            },
            {"jsonrpc": "2.0", "method": "notifications/initialized"},
        ]

    async def test_what_the_server_says_becomes_discovery(self, client: Client) -> None:
        assert (await client.ask("server/discover"))["result"] == {
            "resultType": "complete",
            "supportedVersions": ["2026-07-28"],
            "capabilities": {name: value for name, value in CAPABILITIES.items() if name != "tasks"},
            "ttlMs": 0,
            "cacheScope": "private",
            "_meta": {P + "serverInfo": {"name": "s", "version": "1"}},
            "x": 2**70,
        }

    async def test_it_is_used_again_and_shared(self, server: Server, client: Client) -> None:
        server.answers["tools/list"], server.answers["tools/call"] = lists, tool
        await asyncio.gather(*(client.ask("tools/list") for _ in range(5)))
        await client.ask("tools/call", name="t")
        assert len(server.sessions) == 1

    async def test_another_client_gets_another(self, server: Server, client: Client) -> None:
        await client.ask("server/discover")
        client.capabilities = {}
        await client.ask("server/discover")
        assert [s.of("initialize")[0]["params"]["capabilities"] for s in server.sessions] == [
            ALL | {"extensions": {}},
            {},
        ]

    async def test_it_is_closed_when_nobody_has_used_it_for_a_while(self, server: Server) -> None:
        client = limited(server, sessions={"idle": 0.02})
        server.answers["tools/call"] = tool
        await client.ask("tools/call", name="t")
        assert not client.endpoint.idle
        await eventually(lambda: not server.open_sessions)
        assert client.endpoint.idle
        await client.ask("tools/call", name="t")
        assert len(server.sessions) == 2
        await client.endpoint.close()

    async def test_a_lost_session_fails_what_runs_and_the_next_request_gets_another(
        self, server: Server, client: Client
    ) -> None:
        server.answers["tools/call"] = waits
        calls = [client.begin(client.call()), client.begin(client.ask("tools/call", name="u"))]
        await eventually(lambda: len(server.of("tools/call")) == 2)
        for session in server.sessions:
            session.lose()
        for call in calls:
            with pytest.raises(UpstreamFailed, match="gone"):
                await call
        server.answers["tools/call"] = tool
        await client.ask("tools/call", name="v")
        assert [message["params"]["name"] for message in server.of("tools/call")] == ["t", "u", "v"]

    async def test_a_session_that_cannot_be_made_fails_the_request(
        self, server: Server, client: Client
    ) -> None:
        server.down = UpstreamFailed("upstream_unreachable", "down")
        for _ in range(2):
            with pytest.raises(UpstreamFailed, match="down"):
                await client.call()
        server.down = None
        server.answers["tools/call"] = tool
        await client.ask("tools/call", name="t")

    @pytest.mark.parametrize("version", ["2026-07-28", "1999-01-01", ""])
    async def test_a_server_of_an_unknown_revision_is_not_spoken_to(
        self, server: Server, client: Client, version: str
    ) -> None:
        server.version = version
        with pytest.raises(UpstreamFailed) as failed:
            await client.call()
        assert failed.value.reason == "upstream_bad_answer"
        await eventually(lambda: not server.open_sessions)

    async def test_a_server_that_does_not_answer_initialize_is_given_up(self, server: Server) -> None:
        client = limited(server, sessions={"start": 0.02})
        server.answers["initialize"] = waits
        with pytest.raises(UpstreamFailed) as failed:
            await client.call()
        assert failed.value.reason == "upstream_timeout"
        await eventually(lambda: not server.open_sessions)
        await client.endpoint.close()

    async def test_a_request_cancelled_while_the_session_begins_leaves_it_to_others(
        self, server: Server, client: Client
    ) -> None:
        begin, may_begin = server.answers["initialize"], asyncio.Event()

        async def slow(session: Session, request: dict[str, Any]) -> Any:
            await may_begin.wait()
            return await begin(session, request)

        server.answers["initialize"], server.answers["tools/list"] = slow, lists
        first, second = (client.begin(client.ask("tools/list")) for _ in range(2))
        await eventually(lambda: server.of("initialize"))
        first.cancel()
        may_begin.set()
        assert (await second)["result"]["tools"] == []
        assert (len(server.sessions), len(server.of("tools/list"))) == (1, 1)

    async def test_closing_ends_a_session_that_only_begins(self, server: Server, client: Client) -> None:
        server.answers["initialize"] = waits
        call = client.begin(client.call())
        await eventually(lambda: server.of("initialize"))
        await client.endpoint.close()
        with pytest.raises(UpstreamFailed):
            await call

    async def test_a_server_that_refuses_to_begin_is_quoted(self, server: Server, client: Client) -> None:
        async def refuse(session: Session, request: dict[str, Any]) -> Any:
            raise Error({"code": -32603, "message": "not today"})

        server.answers["initialize"] = refuse
        with pytest.raises(UpstreamFailed, match="not today"):
            await client.call()

    async def test_more_sessions_than_the_limit_wait_for_one(self, server: Server) -> None:
        client = limited(server, sessions={"most": 1, "patience": 5.0})
        release = asyncio.Event()

        async def until_released(session: Session, request: dict[str, Any]) -> dict[str, Any]:
            await release.wait()
            return {"content": []}

        server.answers["tools/call"] = until_released
        calls = [client.begin(client.call()) for _ in range(3)]
        await eventually(lambda: server.of("tools/call"))
        assert len(server.of("tools/call")) == 1
        release.set()
        await asyncio.gather(*calls)
        assert len(server.sessions) == 1
        await client.endpoint.close()

    async def test_and_are_told_when_it_takes_too_long(self, server: Server) -> None:
        client = limited(server, sessions={"most": 1, "patience": 0.02})
        server.answers["tools/call"] = waits
        running = client.begin(client.call())
        await eventually(lambda: server.of("tools/call"))
        with pytest.raises(UpstreamFailed) as failed:
            await client.call()
        assert failed.value.reason == "upstream_busy"
        running.cancel()
        await client.endpoint.close()

    async def test_a_session_that_nobody_uses_makes_room_for_another_client(self, server: Server) -> None:
        client = limited(server, sessions={"most": 1})
        await client.ask("server/discover")
        client.capabilities = {}
        await client.ask("server/discover")
        await eventually(lambda: len(server.open_sessions) == 1)
        await client.endpoint.close()

    async def test_closing_ends_what_runs(self, server: Server, client: Client) -> None:
        server.answers["tools/call"] = waits
        call = client.begin(client.call())
        await eventually(lambda: server.of("tools/call"))
        await client.endpoint.close()
        with pytest.raises(UpstreamFailed):
            await call
        with pytest.raises(UpstreamFailed):
            await client.call()


class TestRequests:
    @pytest.mark.parametrize(
        ("meta", "code"),
        [
            ({P + "protocolVersion": "2025-11-25"}, -32022),
            ({P + "protocolVersion": 1}, -32022),
            ({P + "clientCapabilities": 1}, -32602),
            ({P + "clientCapabilities": None}, -32602),
            ({P + "logLevel": "loud"}, -32602),
        ],
    )
    async def test_an_envelope_that_is_none_is_refused(
        self, server: Server, client: Client, meta: dict[str, Any], code: int
    ) -> None:
        error = await client.error("tools/list", _meta=meta)
        assert error["code"] == code
        assert server.sessions == []

    @pytest.mark.parametrize("method", ["tasks/get", "initialize", "ping", "resources/subscribe"])
    async def test_what_has_no_counterpart_is_refused(
        self, server: Server, client: Client, method: str
    ) -> None:
        assert (await client.error(method))["code"] == -32601
        assert server.sessions == []

    async def test_unknown_members_and_methods_pass(self, server: Server, client: Client) -> None:
        async def echo(session: Session, request: dict[str, Any]) -> Any:
            return {"was": request["params"]}

        server.answers["vendor/do"] = echo
        result = (await client.ask("vendor/do", x=2**70, _meta={"traceparent": "00-1"}))["result"]
        assert result["was"] == {"x": 2**70, "_meta": {"traceparent": "00-1"}}

    async def test_progress_comes_under_the_clients_token(self, server: Server, client: Client) -> None:
        async def progress(session: Session, request: dict[str, Any]) -> Any:
            token = request["params"]["_meta"]["progressToken"]
            session.tell(
                method="notifications/progress", params={"progressToken": token, "progress": 1, "x": 2**70}
            )
            session.tell(method="notifications/progress", params={"progressToken": "unknown", "progress": 1})
            return {"content": []}

        server.answers["tools/call"] = progress
        await asyncio.gather(*(client.call(_meta={"progressToken": f"mine {n}"}) for n in range(2)))
        told = [message["params"] for message in client.told]
        assert told == [{"progressToken": f"mine {n}", "progress": 1, "x": 2**70} for n in range(2)]

    async def test_a_client_that_wants_no_progress_asks_for_none(
        self, server: Server, client: Client
    ) -> None:
        server.answers["tools/call"] = tool
        await client.ask("tools/call", name="t")
        assert "_meta" not in server.of("tools/call")[0]["params"]

    async def test_log_messages_come_from_the_level_that_the_request_says(
        self, server: Server, client: Client
    ) -> None:
        async def log(session: Session, request: dict[str, Any]) -> Any:
            for level in ("debug", "info", "error"):
                session.tell(
                    method="notifications/message", params={"level": level, "data": request["params"]["name"]}
                )
            return {"content": []}

        server.answers["tools/call"] = log
        await client.call("a")
        await client.call("b", _meta={P + "logLevel": "info"})
        await client.call("c", _meta={P + "logLevel": "error"})
        await client.call("d", _meta={P + "logLevel": "debug"})
        told = [(message["params"]["data"], message["params"]["level"]) for message in client.told]
        assert told == [("b", "info"), ("b", "error"), ("c", "error")] + [
            ("d", level) for level in ("debug", "info", "error")
        ]
        assert [m["params"]["level"] for m in server.of("logging/setLevel")] == ["info", "debug"]

    async def test_a_cancelled_request_is_cancelled_upstream(self, server: Server, client: Client) -> None:
        server.answers["tools/call"] = waits
        call = client.begin(client.call())
        await eventually(lambda: server.of("tools/call"))
        call.cancel()
        await eventually(lambda: server.of("notifications/cancelled"))
        [cancelled], [called] = server.of("notifications/cancelled"), server.of("tools/call")
        assert cancelled["params"]["requestId"] == called["id"]

    async def test_a_request_cancelled_before_it_left_does_not_leave(
        self, server: Server, client: Client
    ) -> None:
        await client.ask("server/discover")
        server.connecting = asyncio.Event()
        call = client.begin(client.call())
        await eventually(lambda: server.sessions[0].held_up)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        server.connecting.set()
        server.answers["tools/list"] = lists
        await client.ask("tools/list")  # nothing that was held up is behind it
        assert server.of("tools/call") == server.of("notifications/cancelled") == []

    async def test_the_session_goes_on_after_one_request_has_failed(
        self, server: Server, client: Client
    ) -> None:
        server.answers["tools/call"] = waits
        call = client.begin(client.call())
        await eventually(lambda: server.of("tools/call"))
        server.sessions[0].on_failed(b"%d" % server.of("tools/call")[0]["id"], BROKEN)
        with pytest.raises(UpstreamFailed, match="gone"):
            await call
        server.answers["tools/call"] = tool
        await client.ask("tools/call", name="t")
        assert len(server.sessions) == 1

    async def test_what_the_check_forbids_does_not_leave(self, server: Server, client: Client) -> None:
        await client.ask("server/discover")

        def forbid() -> None:
            raise UpstreamFailed("tool_denied", "no")

        for method in ("tools/call", "tools/list", "server/discover", "subscriptions/listen"):
            with pytest.raises(UpstreamFailed, match="no"):
                await client.ask(method, forbid, name="t")
        assert [message["method"] for message in server.sessions[0].got] == [
            "initialize",
            "notifications/initialized",
        ]

    async def test_the_check_holds_when_the_call_leaves_and_not_only_before_the_session(
        self, server: Server, client: Client
    ) -> None:
        def forbid_once_initialized() -> None:
            if server.of("initialize"):
                raise UpstreamFailed("lease_expired", "too late")

        with pytest.raises(UpstreamFailed, match="too late"):
            await client.call(check=forbid_once_initialized)
        assert server.of("tools/call") == []
        assert server.of("notifications/cancelled") == []

    async def test_more_requests_than_the_limit_are_refused(self, server: Server) -> None:
        client = limited(server, requests=1)
        server.answers["tools/list"] = waits
        running = client.begin(client.ask("tools/list"))
        await eventually(lambda: server.of("tools/list"))
        with pytest.raises(UpstreamFailed) as failed:
            await client.ask("tools/list")
        assert failed.value.reason == "upstream_busy"
        running.cancel()
        await client.endpoint.close()

    async def test_errors_get_the_codes_of_the_era(self, server: Server, client: Client) -> None:
        async def missing(session: Session, request: dict[str, Any]) -> Any:
            raise Error({"code": -32002, "message": "no", "data": {"uri": "a://b"}})

        server.answers["resources/read"] = missing
        error = await client.error("resources/read", uri="a://b")
        assert error == {"code": -32602, "message": "no", "data": {"uri": "a://b"}}

    async def test_an_answer_that_cannot_be_read_is_a_failure(self, server: Server, client: Client) -> None:
        async def odd(session: Session, request: dict[str, Any]) -> Any:
            return [1]

        server.answers["tools/list"] = odd
        with pytest.raises(UpstreamFailed) as failed:
            await client.ask("tools/list")
        assert failed.value.reason == "upstream_bad_answer"

    async def test_a_notification_goes_to_the_newest_session(self, server: Server, client: Client) -> None:
        plain = b'{"jsonrpc":"2.0","method":"notifications/vendor","params":{"x":1}}'
        await client.endpoint.notify(plain, always)
        await client.ask("server/discover")
        await client.endpoint.notify(plain, always)
        await client.endpoint.notify(b'{"jsonrpc":"2.0","method":"notifications/cancelled"}', always)
        assert server.sessions[0].got[-1] == json.loads(plain)

    async def test_ping_is_answered(self, server: Server, client: Client) -> None:
        await client.ask("server/discover")
        assert (await server.sessions[0].ask("ping"))["result"] == {}


class TestQuestions:
    async def test_the_request_is_answered_with_the_question_and_its_retry_with_the_result(
        self, server: Server, client: Client
    ) -> None:
        server.answers["tools/call"] = asks
        asked = await client.call(arguments={"n": 2**70})
        assert asked == {
            "resultType": "input_required",
            "inputRequests": {"1": {"method": "elicitation/create", "params": FORM}},
            "requestState": asked["requestState"],
        }
        assert prefix_of(asked["requestState"]) == "replica.1"
        result = await client.retry(asked, arguments={"n": 2**70})
        assert result["answered"] == ACCEPTED
        assert len(server.of("tools/call")) == 1, "it is one call upstream"

    async def test_progress_goes_to_whoever_waits_now(self, server: Server, client: Client) -> None:
        async def asks_then_tells(session: Session, request: dict[str, Any]) -> Any:
            await asks(session, request)
            token = request["params"]["_meta"]["progressToken"]
            session.tell(method="notifications/progress", params={"progressToken": token, "progress": 1})
            return {"content": []}

        server.answers["tools/call"] = asks_then_tells
        asked = await client.call(_meta={"progressToken": "first"})
        await client.retry(asked, _meta={"progressToken": "second"})
        assert [message["params"]["progressToken"] for message in client.told] == ["second"]

    async def test_several_rounds_and_a_state_is_good_for_one(self, server: Server, client: Client) -> None:
        async def asks_twice(session: Session, request: dict[str, Any]) -> Any:
            await session.ask("elicitation/create", **FORM)
            return await asks(session, request)

        server.answers["tools/call"] = asks_twice
        first = await client.call()
        second = await client.retry(first)
        assert second["requestState"] != first["requestState"]
        assert (await client.retry(second))["answered"] == ACCEPTED
        for used in (first, second):
            error = await client.error("tools/call", name="t", requestState=used["requestState"])
            assert error["code"] == -32602

    async def test_what_was_not_answered_is_asked_again(self, server: Server, client: Client) -> None:
        async def asks_two(session: Session, request: dict[str, Any]) -> Any:
            answers = await asyncio.gather(
                session.ask("elicitation/create", **FORM), session.ask("roots/list")
            )
            return {"content": [], "answered": [answer["result"] for answer in answers]}

        server.answers["tools/call"] = asks_two
        asked = await client.call()
        assert [question["method"] for question in asked["inputRequests"].values()] == [
            "elicitation/create",
            "roots/list",
        ]
        one: dict[str, Any] = {
            "inputResponses": {"1": ACCEPTED, "other": {}},
            "requestState": asked["requestState"],
        }
        again = await client.call(**one)
        assert again["inputRequests"].keys() == {"2"}
        result = await client.retry(again, answer={"roots": []})
        assert result["answered"] == [ACCEPTED, {"roots": []}]

    async def test_calls_at_once_are_asked_each_for_itself(self, server: Server, client: Client) -> None:
        async def asks_by_name(session: Session, request: dict[str, Any]) -> Any:
            await session.ask("elicitation/create", **FORM | {"message": request["params"]["name"]})
            return {"content": []}

        server.answers["tools/call"] = asks_by_name
        names = ["a", "b", "c"]
        asked = await asyncio.gather(*map(client.call, names))
        assert [each["inputRequests"]["1"]["params"]["message"] for each in asked] == names
        assert len(server.sessions) == 3

    async def test_lists_are_served_while_a_call_waits_for_input(self, server: Server) -> None:
        client = limited(server, sessions={"most": 1})
        server.answers["tools/call"], server.answers["tools/list"] = asks, lists
        await client.call()
        assert (await client.ask("tools/list"))["result"]["tools"] == []
        await client.endpoint.close()

    async def test_a_client_that_cannot_be_asked_needs_one_session_only(
        self, server: Server, client: Client
    ) -> None:
        server.answers["tools/call"] = waits
        client.capabilities = {}
        calls = [client.begin(client.call()) for _ in range(5)]
        await eventually(lambda: len(server.of("tools/call")) == 5)
        assert len(server.sessions) == 1
        assert "does not support" in (await server.sessions[0].ask("elicitation/create"))["error"]["message"]
        for call in calls:
            call.cancel()

    async def test_what_the_client_did_not_declare_is_answered_for_it(
        self, server: Server, client: Client
    ) -> None:
        server.answers["tools/call"] = asks
        client.capabilities = {"sampling": {}}
        assert (await client.call())["answered"]["code"] == -32601

    async def test_a_retry_of_another_request_is_refused_and_the_call_still_waits(
        self, server: Server, client: Client
    ) -> None:
        """What is decided on must be what goes on."""
        server.answers["tools/call"] = server.answers["prompts/get"] = asks
        asked = await client.call()
        state = {"requestState": asked["requestState"], "inputResponses": {"1": ACCEPTED}}
        others: list[tuple[str, dict[str, Any]]] = [
            ("tools/call", {"name": "other"}),
            ("tools/call", {"name": "t", "arguments": {"x": 1}}),
            ("prompts/get", {"name": "t"}),
        ]
        for method, params in others:
            error = await client.error(method, **params, **state)
            assert error["code"] == -32602
        assert (await client.error("tools/call", name="t", **state | {"inputResponses": [1]}))[
            "code"
        ] == -32602
        assert (await client.retry(asked))["answered"] == ACCEPTED

    @pytest.mark.parametrize("state", ["", "replica.1.guess", "other", 7])
    async def test_a_state_that_is_none_is_refused(self, client: Client, state: Any) -> None:
        assert (await client.error("tools/call", name="t", requestState=state))["code"] == -32602

    async def test_another_caller_cannot_use_it(self, server: Server, client: Client) -> None:
        server.answers["tools/call"] = asks
        asked = await client.call()
        other = limited(server)
        error = await other.error("tools/call", name="t", requestState=asked["requestState"])
        assert error["code"] == -32602
        await other.endpoint.close()

    async def test_a_call_that_nobody_takes_up_is_ended(self, server: Server) -> None:
        client = limited(server, lifetime=0.03)
        server.answers["tools/call"] = asks
        asked = await client.call()
        await eventually(lambda: server.of("notifications/cancelled"))
        session = server.sessions[0]
        await eventually(lambda: not session.waiting)
        assert "error" in session.got[-1], "who waits for the answer is told"
        error = await client.error("tools/call", name="t", requestState=asked["requestState"])
        assert "time is over" in error["message"]
        await client.endpoint.close()

    async def test_more_held_calls_than_the_limit_are_ended(self, server: Server) -> None:
        client = limited(server, held=1)
        server.answers["tools/call"] = asks
        await client.call()
        with pytest.raises(UpstreamFailed) as failed:
            await client.call()
        assert failed.value.reason == "upstream_busy"
        await eventually(lambda: len(server.of("notifications/cancelled")) == 1)
        await client.endpoint.close()

    async def test_a_retry_that_is_cancelled_cancels_the_call(self, server: Server, client: Client) -> None:
        async def asks_then_waits(session: Session, request: dict[str, Any]) -> Any:
            await asks(session, request)
            return await waits(session, request)

        server.answers["tools/call"] = asks_then_waits
        retry = client.begin(client.retry(await client.call()))
        await eventually(lambda: not server.sessions[0].waiting)
        retry.cancel()
        await eventually(lambda: server.of("notifications/cancelled"))

    async def test_a_retry_that_the_check_forbids_ends_the_call_unanswered(
        self, server: Server, client: Client
    ) -> None:
        server.answers["tools/call"] = asks
        asked = await client.call()
        allowed = [False, True]

        def forbid_the_second() -> None:
            if not allowed.pop():
                raise UpstreamFailed("tool_denied", "no")

        with pytest.raises(UpstreamFailed, match="no"):
            await client.retry(asked, check=forbid_the_second)
        await eventually(lambda: server.of("notifications/cancelled"))
        assert not [message for message in server.sessions[0].got if message.get("result") == ACCEPTED]

    async def test_a_session_lost_while_a_call_waits_fails_its_retry(
        self, server: Server, client: Client
    ) -> None:
        server.answers["tools/call"] = asks
        asked = await client.call()
        server.sessions[0].lose()
        with pytest.raises(UpstreamFailed):
            await client.retry(asked)

    async def test_a_question_that_the_server_takes_back_needs_no_answer(
        self, server: Server, client: Client
    ) -> None:
        async def asks_and_withdraws(session: Session, request: dict[str, Any]) -> Any:
            asking = asyncio.create_task(session.ask("elicitation/create", **FORM))
            await taken_back.wait()
            asking.cancel()
            session.tell(method="notifications/cancelled", params={"requestId": "q1"})
            return {"content": []}

        taken_back = asyncio.Event()
        server.answers["tools/call"] = asks_and_withdraws
        asked = await client.call()
        taken_back.set()
        await eventually(server.sessions[0].running[2].done)
        assert (await client.retry(asked))["resultType"] == "complete"
        assert not [message for message in server.sessions[0].got if "result" in message]

    async def test_roots_asked_for_at_the_beginning_are_asked_for_in_the_first_call(
        self, server: Server, client: Client
    ) -> None:
        """Servers ask for them as soon as they are initialized, in no request at all."""
        server.answers["tools/call"] = tool
        await client.ask("server/discover")
        asking = asyncio.create_task(server.sessions[0].ask("roots/list"))
        await eventually(lambda: server.sessions[0].waiting)
        asked = await client.call()
        assert asked["inputRequests"] == {"1": {"method": "roots/list", "params": {}}}
        assert (await client.retry(asked, answer={"roots": []}))["resultType"] == "complete"
        assert (await asking)["result"] == {"roots": []}

    async def test_a_call_may_be_asked_so_many_questions_and_no_more(
        self, server: Server, client: Client
    ) -> None:
        async def asks_many(session: Session, request: dict[str, Any]) -> Any:
            answers = await asyncio.gather(*(session.ask("elicitation/create", **FORM) for _ in range(70)))
            return {"content": [], "refused": sum("error" in answer for answer in answers)}

        server.answers["tools/call"] = asks_many
        asked = await client.call()
        assert len(asked["inputRequests"]) == 64
        assert (await client.retry(asked))["refused"] == 6

    async def test_other_questions_outside_of_a_call_are_refused(
        self, server: Server, client: Client
    ) -> None:
        await client.ask("server/discover")
        answer = await server.sessions[0].ask("elicitation/create", **FORM)
        assert "no request" in answer["error"]["message"]

    async def test_urls_that_the_server_requires_are_asked_for_and_the_call_made_anew(
        self, server: Server, client: Client
    ) -> None:
        url = {"mode": "url", "elicitationId": "e", "message": "?", "url": "https://a.example"}

        async def requires(session: Session, request: dict[str, Any]) -> Any:
            if len(server.of("tools/call")) == 1:
                raise Error({"code": -32042, "message": "first this", "data": {"elicitations": [url]}})
            return {"content": []}

        server.answers["tools/call"] = requires
        asked = await client.call()
        assert asked["inputRequests"]["1"]["params"] == {k: v for k, v in url.items() if k != "elicitationId"}
        assert "requestState" not in asked
        declined = await client.error("tools/call", name="t", inputResponses={"1": {"action": "decline"}})
        assert declined["code"] == -31499
        assert (await client.call(inputResponses={"1": {"action": "accept"}}))["resultType"] == "complete"
        assert len(server.of("tools/call")) == 2


class TestListening:
    WANTED = {"toolsListChanged": True, "promptsListChanged": True, "resourceSubscriptions": ["a://b"]}  # noqa: RUF012

    async def listen(self, client: Client, **wanted: Any) -> "asyncio.Task[Any]":
        acknowledged = "notifications/subscriptions/acknowledged"
        before = len([m for m in client.told if m["method"] == acknowledged])
        listening = client.begin(client.ask("subscriptions/listen", notifications=wanted))
        await eventually(lambda: len([m for m in client.told if m["method"] == acknowledged]) > before)
        return listening

    async def test_what_the_server_tells_of_is_acknowledged_and_told(
        self, server: Server, client: Client
    ) -> None:
        listening = await self.listen(client, **self.WANTED)
        [session] = server.sessions
        session.tell(method="notifications/tools/list_changed")
        session.tell(method="notifications/prompts/list_changed")
        session.tell(method="notifications/resources/updated", params={"uri": "a://b", "x": 2**70})
        session.tell(method="notifications/resources/updated", params={"uri": "c://d"})
        mark = {P + "subscriptionId": 1}
        assert [
            (message["method"].removeprefix("notifications/"), message["params"]) for message in client.told
        ] == [
            (
                "subscriptions/acknowledged",
                {
                    "_meta": mark,
                    "notifications": {"toolsListChanged": True, "resourceSubscriptions": ["a://b"]},
                },
            ),
            ("tools/list_changed", {"_meta": mark}),
            ("resources/updated", {"uri": "a://b", "x": 2**70, "_meta": mark}),
        ]
        listening.cancel()

    async def test_nothing_is_told_before_the_acknowledgement(self, server: Server, client: Client) -> None:
        async def tells_first(session: Session, request: dict[str, Any]) -> Any:
            for _ in range(3):
                session.tell(method="notifications/tools/list_changed")
            return {}

        server.answers["resources/subscribe"] = tells_first
        listening = await self.listen(client, **self.WANTED)
        assert [message["method"] for message in client.told] == [
            "notifications/subscriptions/acknowledged",
            "notifications/tools/list_changed",
        ]
        listening.cancel()

    async def test_a_resource_is_subscribed_to_once_and_until_the_last_has_gone(
        self, server: Server, client: Client
    ) -> None:
        first = await self.listen(client, **self.WANTED)
        second = await self.listen(client, **self.WANTED)
        assert len(server.of("resources/subscribe")) == 1
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert server.of("resources/unsubscribe") == []
        second.cancel()
        await eventually(lambda: server.of("resources/unsubscribe"))
        assert len(server.sessions) == 1

    async def test_a_resource_that_the_server_refuses_is_left_out(
        self, server: Server, client: Client
    ) -> None:
        async def refuse(session: Session, request: dict[str, Any]) -> Any:
            raise Error({"code": -32002, "message": "no"})

        server.answers["resources/subscribe"] = refuse
        listening = await self.listen(client, **self.WANTED)
        assert client.told[0]["params"]["notifications"] == {"toolsListChanged": True}
        listening.cancel()

    async def test_its_session_stays_open(self, server: Server) -> None:
        client = limited(server, sessions={"idle": 0.01})
        server.answers["tools/call"] = tool
        listening = await self.listen(client, toolsListChanged=True)
        await client.call()
        await asyncio.sleep(0.05)  # longer than an idle session lives
        assert len(server.open_sessions) == 1
        listening.cancel()
        await eventually(lambda: not server.open_sessions)
        await client.endpoint.close()

    async def test_a_lost_session_ends_it(self, server: Server, client: Client) -> None:
        listening = await self.listen(client, toolsListChanged=True)
        server.sessions[0].lose()
        with pytest.raises(UpstreamFailed, match="gone"):
            await listening

    @pytest.mark.parametrize(
        "wanted",
        [
            {"resourceSubscriptions": [1]},
            {"resourceSubscriptions": [f"a://{n}" for n in range(1001)]},
        ],
    )
    async def test_a_filter_that_is_none_or_too_long_is_refused(
        self, client: Client, wanted: dict[str, Any]
    ) -> None:
        assert (await client.error("subscriptions/listen", notifications=wanted))["code"] == -32602


class TestFloods:
    async def test_a_server_that_asks_without_taking_answers_loses_its_session(
        self, server: Server, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await client.ask("server/discover")
        [session] = server.sessions

        async def stuck(message: bytes, check: Check) -> None:
            await asyncio.Event().wait()

        monkeypatch.setattr(session, "send", stuck)
        for n in range(1000):
            session.tell(id=n, method="ping")
        await eventually(lambda: session.closed)
