"""Clients of one era with real servers (mcp 2.3) of the other, through the links, over real HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from mcp_types.methods import validate_server_result

from services.gateway.connection import UpstreamFailed
from services.gateway.eras.legacy_over_modern import LegacyOverModern
from services.gateway.eras.modern_over_legacy import ModernOverLegacy
from services.gateway.links.http import HttpSession
from services.gateway.links.modern import ModernEndpoint
from services.gateway.links.port import Emit, OnClosed, OnFailed, Session, always
from services.gateway.links.route import Route
from services.gateway.links.sse import SseSession
from tests.conftest import eventually
from tests.unit.gateway.links_made import Talk, modern, notification, request, response, route_to, text
from tests.unit.gateway.mcp_servers import App, legacy_app, modern_only_app, served, sse_app

# -- a legacy client, a modern server ----------------------------------------------------------------


@dataclass
class Place:
    app: App
    talk: Talk
    initialized: dict[str, Any]


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    app = modern_only_app()
    async with served(app) as url, route_to(url + "/mcp") as route:
        talk = Talk().open(lambda *to: LegacyOverModern(ModernEndpoint(route), *to, name="demo"))
        yield Place(app, talk, await talk.begin())
        await talk.session.close()
        assert not talk.closed
        assert not talk.failed


class TestALegacyClientWithAModernServer:
    async def test_is_told_who_the_server_is(self, place: Place) -> None:
        validate_server_result("initialize", "2025-11-25", place.initialized)
        assert place.initialized["serverInfo"]["name"] == "everything"
        assert place.initialized["protocolVersion"] == "2025-11-25"

    @pytest.mark.parametrize("method", ["tools/list", "prompts/list", "resources/list", "ping"])
    async def test_gets_results_of_its_own_era(self, place: Place, method: str) -> None:
        await place.talk.say(request("a", method))
        result = (await place.talk.answer("a"))["result"]
        validate_server_result(method, "2025-11-25", result)
        assert not result.keys() & {"resultType", "ttlMs", "cacheScope"}

    async def test_calls_several_tools_at_once(self, place: Place) -> None:
        results = await asyncio.gather(*(place.talk.call("echo", text=f"text {n}") for n in range(10)))
        assert [text(result) for result in results] == [f"text {n}" for n in range(10)]

    async def test_gets_progress_under_its_token_before_the_answer(self, place: Place) -> None:
        id = await place.talk.begin_call("count", to=5)
        await place.talk.answer(id)
        steps = place.talk.of("notifications/progress")
        assert [step["params"]["progress"] for step in steps] == [1, 2, 3, 4, 5]
        assert {step["params"]["progressToken"] for step in steps} == {f"token-{id}"}

    async def test_gets_log_messages(self, place: Place) -> None:
        await place.talk.say(request("level", "logging/setLevel", level="info"))
        await place.talk.call("log", text="heard")
        assert [m["params"]["data"] for m in place.talk.of("notifications/message")] == ["heard"]

    async def test_is_asked_and_its_answer_arrives(self, place: Place) -> None:
        id = await place.talk.begin_call("ask")
        await eventually(lambda: place.talk.of("elicitation/create"))
        asked = place.talk.of("elicitation/create")[0]
        await place.talk.say(response(asked["id"], {"action": "accept", "content": {"name": "Ann"}}))
        assert text((await place.talk.answer(id))["result"]) == "you are Ann"

    async def test_lends_its_model(self, place: Place) -> None:
        id = await place.talk.begin_call("sample")
        await eventually(lambda: place.talk.of("sampling/createMessage"))
        asked = place.talk.of("sampling/createMessage")[0]
        said = {"role": "assistant", "model": "m", "content": {"type": "text", "text": "something"}}
        await place.talk.say(response(asked["id"], said))
        assert text((await place.talk.answer(id))["result"]) == "the model said something"

    async def test_cancels_a_call(self, place: Place) -> None:
        id = await place.talk.begin_call("slow")
        await eventually(lambda: place.talk.of("notifications/progress"))
        await place.talk.say(notification("notifications/cancelled", requestId=id))
        await eventually(lambda: place.app.did == ["slow began", "slow cancelled"])

    async def test_hears_that_a_list_has_changed(self, place: Place) -> None:
        async def announced() -> None:
            while not place.talk.of("notifications/tools/list_changed"):
                await place.talk.call("announce")

        await asyncio.wait_for(announced(), 10)
        changed = place.talk.of("notifications/tools/list_changed")[0]
        assert "_meta" not in changed.get("params", {})

    async def test_gets_the_code_of_its_era_for_a_resource_that_is_not_there(self, place: Place) -> None:
        await place.talk.say(request("a", "resources/read", uri="demo://nothing"))
        assert (await place.talk.answer("a"))["error"]["code"] == -32002

    async def test_gets_a_prompt_and_a_resource(self, place: Place) -> None:
        await place.talk.say(request("p", "prompts/get", name="introduce", arguments={"name": "Ann"}))
        await place.talk.say(request("r", "resources/read", uri="demo://greeting"))
        validate_server_result("prompts/get", "2025-11-25", (await place.talk.answer("p"))["result"])
        assert (await place.talk.answer("r"))["result"]["contents"][0]["text"] == "hello"


# -- a modern client, a legacy server ----------------------------------------------------------------


@dataclass
class Client:
    """A modern client of an endpoint, which keeps what it is told on the way."""

    endpoint: ModernOverLegacy
    told: list[dict[str, Any]] = field(default_factory=list)

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """The response to a request, which must be as the modern revision has it."""
        raw = modern("an id", method, **params)
        answer: dict[str, Any] = json.loads(await self.endpoint.request(raw, self.hear, always))
        assert answer["id"] == "an id"
        if "result" in answer:
            validate_server_result(method, "2026-07-28", answer["result"])
        return answer

    async def call(self, tool: str, retry: dict[str, Any] | None = None, **arguments: Any) -> dict[str, Any]:
        meta = {"progressToken": "t", "io.modelcontextprotocol/logLevel": "info"}
        answer = await self.ask("tools/call", name=tool, arguments=arguments, _meta=meta, **(retry or {}))
        result: dict[str, Any] = answer["result"]
        return result

    def hear(self, raw: bytes) -> None:
        self.told.append(json.loads(raw))

    def of(self, method: str) -> list[dict[str, Any]]:
        return [message for message in self.told if message["method"] == method]


Make = Callable[[Route, Emit, OnClosed, OnFailed], Session]
KINDS: dict[str, tuple[Callable[[], App], str, Make]] = {
    "http": (legacy_app, "/mcp", HttpSession),
    "sse": (sse_app, "/sse", SseSession),
}


@dataclass
class Far:
    app: App
    client: Client


@asynccontextmanager
async def far_of(kind: str) -> AsyncIterator[Far]:
    make_app, path, make = KINDS[kind]
    app = make_app()
    async with served(app) as url, route_to(url + path) as route:
        endpoint = ModernOverLegacy(lambda *to: make(route, *to), "replica-1")
        yield Far(app, Client(endpoint))
        await endpoint.close()
        assert endpoint.idle


@pytest.fixture(params=KINDS)
async def far(request: pytest.FixtureRequest) -> AsyncIterator[Far]:
    async with far_of(request.param) as far:
        yield far


class TestAModernClientWithALegacyServer:
    async def test_discovers_it(self, far: Far) -> None:
        result = (await far.client.ask("server/discover"))["result"]
        assert result["supportedVersions"] == ["2026-07-28"]
        assert result["cacheScope"] == "private"
        assert result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"] == "everything"

    @pytest.mark.parametrize("method", ["tools/list", "prompts/list", "resources/list"])
    async def test_gets_lists_that_are_stale_at_once_and_nobody_elses(self, far: Far, method: str) -> None:
        result = (await far.client.ask(method))["result"]
        assert (result["ttlMs"], result["cacheScope"]) == (0, "private")

    async def test_calls_several_tools_at_once(self, far: Far) -> None:
        results = await asyncio.gather(*(far.client.call("echo", text=f"text {n}") for n in range(12)))
        assert [text(result) for result in results] == [f"text {n}" for n in range(12)]

    async def test_gets_progress_under_its_token(self, far: Far) -> None:
        await far.client.call("count", to=5)
        steps = far.client.of("notifications/progress")
        assert [(s["params"]["progress"], s["params"]["progressToken"]) for s in steps] == [
            (n, "t") for n in range(1, 6)
        ]

    async def test_gets_log_messages(self, far: Far) -> None:
        await far.client.call("log", text="heard")
        assert [m["params"]["data"] for m in far.client.of("notifications/message")] == ["heard"]

    async def test_is_asked_and_tries_again_with_the_answer(self, far: Far) -> None:
        asked = await far.client.call("ask")
        assert asked["resultType"] == "input_required"
        assert asked["requestState"].startswith("replica-1.")
        [(key, question)] = asked["inputRequests"].items()
        assert question["method"] == "elicitation/create"
        answers = {key: {"action": "accept", "content": {"name": "Ann"}}}
        retry = {"inputResponses": answers, "requestState": asked["requestState"]}
        assert text(await far.client.call("ask", retry)) == "you are Ann"

    async def test_lends_its_model(self, far: Far) -> None:
        asked = await far.client.call("sample")
        [(key, question)] = asked["inputRequests"].items()
        assert question["method"] == "sampling/createMessage"
        said = {"role": "assistant", "model": "m", "content": {"type": "text", "text": "something"}}
        retry = {"inputResponses": {key: said}, "requestState": asked["requestState"]}
        assert text(await far.client.call("sample", retry)) == "the model said something"

    async def test_is_asked_in_several_calls_at_once_and_each_gets_its_own_answer(self, far: Far) -> None:
        async def ask(name: str) -> str:
            asked = await far.client.call("ask")
            [key] = asked["inputRequests"]
            answers = {key: {"action": "accept", "content": {"name": name}}}
            retry = {"inputResponses": answers, "requestState": asked["requestState"]}
            return text(await far.client.call("ask", retry))

        names = [f"person {n}" for n in range(5)]
        assert await asyncio.gather(*map(ask, names)) == [f"you are {name}" for name in names]

    async def test_cancels_a_call(self, far: Far) -> None:
        call = asyncio.create_task(far.client.call("slow"))
        await eventually(lambda: far.client.of("notifications/progress"))
        call.cancel()
        await eventually(lambda: far.app.did == ["slow began", "slow cancelled"])

    async def test_hears_that_a_list_has_changed(self, far: Far) -> None:
        wanted = {"toolsListChanged": True}
        listening = asyncio.create_task(far.client.ask("subscriptions/listen", notifications=wanted))
        await eventually(lambda: far.client.of("notifications/subscriptions/acknowledged"))

        async def announced() -> None:
            while not far.client.of("notifications/tools/list_changed"):
                await far.client.call("announce")

        await asyncio.wait_for(announced(), 10)
        changed = far.client.of("notifications/tools/list_changed")[0]
        assert changed["params"]["_meta"] == {"io.modelcontextprotocol/subscriptionId": "an id"}
        listening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await listening

    async def test_gets_the_code_of_its_era_for_a_resource_that_is_not_there(self, far: Far) -> None:
        answer = await far.client.ask("resources/read", uri="demo://nothing")
        assert answer["error"]["code"] == -32602


async def test_a_server_that_goes_away_fails_what_runs_and_nothing_is_repeated() -> None:
    app = legacy_app()
    async with route_to("http://127.0.0.1:9/mcp") as nowhere:
        endpoint = ModernOverLegacy(lambda *to: HttpSession(nowhere, *to), "r")
        with pytest.raises(UpstreamFailed, match="refuses"):
            await Client(endpoint).call("echo", text="x")
        assert app.did == []
        await endpoint.close()
