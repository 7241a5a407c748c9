"""`/mcp`: many servers as one. Servers here are endpoints written by hand; tests/e2e has real ones."""

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.aggregate.changes import Changes
from services.gateway.aggregate.endpoint import Aggregate, Names, Surroundings
from services.gateway.aggregate.merging import UNAVAILABLE
from services.gateway.aggregate.names import Place, place_of, public_name, public_uri, resource_of
from services.gateway.connection import UpstreamFailed
from services.gateway.links.port import Check, Emit, always
from tests.conftest import eventually

SLUGS = st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True)
NAMES = st.text(min_size=1, max_size=128)


class TestNames:
    @given(SLUGS, NAMES)
    def test_a_public_name_is_one_that_every_client_accepts(self, slug: str, name: str) -> None:
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", public_name(slug, name))

    @given(SLUGS, NAMES, SLUGS, NAMES)
    def test_two_places_never_share_a_name(self, slug: str, name: str, other: str, another: str) -> None:
        same = (slug, name) == (other, another)
        assert (public_name(slug, name) == public_name(other, another)) is same

    @given(SLUGS, NAMES)
    def test_a_name_that_is_not_hashed_says_what_it_stands_for(self, slug: str, name: str) -> None:
        assert place_of(public_name(slug, name)) in {None, Place(slug, name)}

    def test_an_ordinary_name_stays_readable(self) -> None:
        assert public_name("crm", "find_customer") == "crm__find_customer"

    def test_a_name_is_stable(self) -> None:
        """Clients keep names in their settings: this one must never change."""
        assert public_name("crm", "ünïcode tool") == "crm___n_code_tool__h4c1f420a6b1a2a58"

    def test_a_server_cannot_name_a_tool_like_the_hash_of_another_of_its_tools(self) -> None:
        long = "x" * 100
        imitation = public_name("crm", long).removeprefix("crm__")
        assert public_name("crm", imitation) != public_name("crm", long)

    @given(SLUGS, st.text(min_size=1))
    def test_a_resource_keeps_its_own_uri_behind_the_public_one(self, slug: str, uri: str) -> None:
        assert resource_of(public_uri(slug, uri)) == Place(slug, uri)


class Fake:
    """A server that answers by a function of method and params."""

    def __init__(self, answer: Callable[[str, dict[str, Any]], Any]) -> None:
        self.answer = answer
        self.asked: list[dict[str, Any]] = []
        self.emitted: list[bytes] = []
        self.open = 0

    async def request(self, message: bytes, emit: Emit, check: Check) -> bytes:
        check()
        decoded = json.loads(message)
        self.asked.append(decoded)
        for notification in self.emitted:
            emit(notification)
        self.open += 1
        try:
            value = self.answer(decoded["method"], decoded.get("params", {}))
            value = await value if asyncio.iscoroutine(value) else value
        finally:
            self.open -= 1
        if isinstance(value, bytes):
            return value
        kind = "error" if "code" in value else "result"
        return json.dumps({"jsonrpc": "2.0", "id": decoded["id"], kind: value}).encode()

    async def notify(self, message: bytes, check: Check) -> None:
        raise AssertionError("nothing is notified")

    async def close(self) -> None:
        raise AssertionError("not the aggregate's to close")


def offering(**lists: list[dict[str, Any]]) -> Callable[[str, dict[str, Any]], Any]:
    """A server with these lists (`tools=[...]`), which answers other requests with what it was asked."""

    def answer(method: str, params: dict[str, Any]) -> Any:
        kind, _, verb = method.partition("/")
        if verb == "list":
            return {kind: lists.get(kind, []), "resultType": "complete"}
        return {"method": method, "params": params}

    return answer


refusing = Fake(lambda *_: {"code": -31404, "message": "Unknown server"})


class Everything:
    """An aggregate over fakes."""

    def __init__(self, deadline: float = 5.0, **servers: Fake) -> None:
        self.servers = {slug.replace("_", "-"): fake for slug, fake in servers.items()}
        self.known: dict[str, list[str]] = {}
        self.names = Names()
        self.changes = Changes()
        self.deadline = deadline

    def aggregate(self) -> Aggregate:
        around = Surroundings(
            lambda: list(self.servers),
            lambda slug: self.servers.get(slug, refusing),
            lambda slug: self.known.get(slug, []),
            self.names,
            self.changes,
            self.deadline,
        )
        return Aggregate(around)

    async def ask(self, method: str, emit: Emit = lambda _: None, **params: Any) -> dict[str, Any]:
        message = json.dumps({"jsonrpc": "2.0", "id": 7, "method": method, "params": params}).encode()
        async with asyncio.timeout(10):
            answer: dict[str, Any] = json.loads(await self.aggregate().request(message, emit, always))
        assert answer["id"] == 7
        return answer


def tools(*names: str) -> Fake:
    return Fake(offering(tools=[{"name": name, "inputSchema": {"type": "object"}} for name in names]))


async def dead(method: str, params: dict[str, Any]) -> Any:
    raise UpstreamFailed("upstream_unreachable", "it refuses connections")


async def silent(method: str, params: dict[str, Any]) -> Any:
    await asyncio.Event().wait()


class TestLists:
    async def test_hold_what_every_server_offers_in_a_stable_order(self) -> None:
        answer = await Everything(crm=tools("find", "add"), wiki=tools("find")).ask("tools/list")
        names = [tool["name"] for tool in answer["result"]["tools"]]
        assert names == ["crm__find", "crm__add", "wiki__find"]

    async def test_are_private_and_soon_stale(self) -> None:
        result = (await Everything(crm=tools("find")).ask("tools/list"))["result"]
        assert (result["cacheScope"], result["resultType"]) == ("private", "complete")
        assert result["ttlMs"] <= 5_000

    async def test_are_read_to_their_last_page(self) -> None:
        def paged(method: str, params: dict[str, Any]) -> Any:
            if "cursor" in params:
                return {"tools": [{"name": "second"}]}
            return {"tools": [{"name": "first"}], "nextCursor": "more"}

        result = (await Everything(crm=Fake(paged)).ask("tools/list"))["result"]
        assert [tool["name"] for tool in result["tools"]] == ["crm__first", "crm__second"]
        assert "nextCursor" not in result

    @pytest.mark.parametrize(
        ("down", "why"), [(dead, "it refuses connections"), (silent, "it did not answer within 0.1 s")]
    )
    async def test_a_server_that_is_down_costs_its_own_part_and_says_so(self, down: Any, why: str) -> None:
        everything = Everything(deadline=0.1, crm=tools("find"), wiki=Fake(down))
        result = (await everything.ask("tools/list"))["result"]
        assert [tool["name"] for tool in result["tools"]] == ["crm__find"]
        assert result["_meta"] == {UNAVAILABLE: {"wiki": why}}
        assert result["ttlMs"] == 0, "nobody keeps a list with a gap"

    async def test_a_server_that_refuses_says_why(self) -> None:
        refusing = Fake(lambda *_: {"code": -31428, "message": "no credential is stored for it"})
        result = (await Everything(wiki=refusing).ask("tools/list"))["result"]
        assert result["_meta"] == {UNAVAILABLE: {"wiki": "no credential is stored for it"}}

    async def test_a_server_without_prompts_is_no_problem(self) -> None:
        without = Fake(lambda *_: {"code": -32601, "message": "Method not found"})
        result = (await Everything(crm=without).ask("prompts/list"))["result"]
        assert result["prompts"] == []
        assert "_meta" not in result

    @pytest.mark.parametrize(
        "broken", [b'{"id":7,"result":{"tools":[{"title":"x"}]}}', b'{"id":7,"result":[]}']
    )
    async def test_an_unreadable_list_is_left_out(self, broken: bytes) -> None:
        result = (await Everything(crm=tools("find"), wiki=Fake(lambda *_: broken)).ask("tools/list"))[
            "result"
        ]
        assert [tool["name"] for tool in result["tools"]] == ["crm__find"]
        assert "wiki" in result["_meta"][UNAVAILABLE]

    async def test_what_is_said_of_a_tool_stays_byte_for_byte(self) -> None:
        tool = b'{"name":"add","x-new":{"n":1180591620717411303424,"f":1.0},"title":"\\u0041dd"}'
        raw = b'{"jsonrpc":"2.0","id":7,"result":{"tools":[' + tool + b"]}}"
        everything = Everything(crm=Fake(lambda *_: raw))
        message = b'{"jsonrpc":"2.0","id":7,"method":"tools/list","params":{}}'
        answer = await everything.aggregate().request(message, lambda _: None, always)
        assert tool.replace(b'"add"', b'"crm__add"', 1) in answer

    async def test_resources_get_uris_that_say_whose_they_are(self) -> None:
        crm = Fake(offering(resources=[{"uri": "file:///a", "name": "a"}]))
        result = (await Everything(crm=crm).ask("resources/list"))["result"]
        assert result["resources"] == [{"uri": "mcp.crm+file:///a", "name": "a"}]

    async def test_a_cursor_that_nobody_gave_is_refused(self) -> None:
        answer = await Everything(crm=tools("find")).ask("tools/list", cursor="x")
        assert answer["error"]["code"] == -32602


class TestCalls:
    async def test_go_to_their_server_under_its_own_name(self) -> None:
        crm, wiki = tools("find"), tools("find")
        await Everything(crm=crm, wiki=wiki).ask("tools/call", name="wiki__find", arguments={"q": 1})
        assert crm.asked == []
        assert wiki.asked[0]["params"] == {"name": "find", "arguments": {"q": 1}}

    async def test_by_a_cut_name_find_their_tool_without_a_list_before(self) -> None:
        """The replica that gets the call need not be the one that gave the list."""
        long = "a" * 100
        crm = tools("b" * 100, long)
        await Everything(crm=crm).ask("tools/call", name=public_name("crm", long), arguments={})
        assert crm.asked[-1]["params"]["name"] == long

    async def test_by_a_cut_name_need_no_list_if_the_log_knows_the_tool(self) -> None:
        long, crm = "a" * 100, tools()
        everything = Everything(crm=crm)
        everything.known["crm"] = [long]
        await everything.ask("tools/call", name=public_name("crm", long), arguments={})
        assert [asked["method"] for asked in crm.asked] == ["tools/call"]

    @pytest.mark.parametrize("name", ["find", "other__find", "__find", "crm__", "crm__x__h0123456789abcdef"])
    async def test_of_names_that_nobody_has_are_refused(self, name: str) -> None:
        crm = tools("find")
        answer = await Everything(crm=crm).ask("tools/call", name=name)
        assert answer["error"]["code"] in {-32602, -31404}  # no public name, or no such server
        assert not [asked for asked in crm.asked if asked["method"] == "tools/call"]

    async def test_to_a_server_that_is_down_fail_with_its_name(self) -> None:
        answer = await Everything(wiki=Fake(dead)).ask("tools/call", name="wiki__find")
        assert answer["error"]["message"] == "Lockgate: wiki: it refuses connections"

    async def test_of_one_server_do_not_wait_for_another(self) -> None:
        everything = Everything(crm=tools("find"), wiki=Fake(silent))
        answer = await everything.ask("tools/call", name="crm__find", arguments={})
        assert answer["result"]["method"] == "tools/call"

    async def test_pass_progress_and_keep_what_they_do_not_know(self) -> None:
        crm = tools("find")
        crm.emitted = [b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":1e400}}']
        seen: list[bytes] = []
        answer = await Everything(crm=crm).ask("tools/call", seen.append, name="crm__find", requestState="s")
        assert seen == crm.emitted
        assert answer["result"]["params"]["requestState"] == "s"

    async def test_answers_name_resources_by_their_public_uris(self) -> None:
        blocks = [
            {"type": "text", "text": "file:///a"},
            {"type": "resource_link", "uri": "file:///a", "name": "a"},
            {"type": "resource", "resource": {"uri": "file:///b", "text": "b"}},
        ]
        answer = await Everything(crm=Fake(lambda *_: {"content": blocks})).ask("tools/call", name="crm__x")
        text, link, embedded = answer["result"]["content"]
        assert text == blocks[0]
        assert link["uri"] == "mcp.crm+file:///a"
        assert embedded["resource"]["uri"] == "mcp.crm+file:///b"

    async def test_prompts_and_resources_find_their_way_too(self) -> None:
        crm = tools()
        everything = Everything(crm=crm)
        await everything.ask("prompts/get", name="crm__hello")
        await everything.ask("resources/read", uri="mcp.crm+file:///a")
        ref = {"type": "ref/resource", "uri": "mcp.crm+file:///{path}"}
        await everything.ask("completion/complete", ref=ref, argument={"name": "path", "value": ""})
        sent = [asked["params"] for asked in crm.asked]
        assert [sent[0]["name"], sent[1]["uri"], sent[2]["ref"]["uri"]] == [
            "hello",
            "file:///a",
            "file:///{path}",
        ]

    async def test_of_other_methods_name_the_way_out(self) -> None:
        answer = await Everything(crm=tools()).ask("tasks/get", taskId="1")
        assert answer["error"]["code"] == -32601
        assert "URL of one server" in answer["error"]["message"]


class TestListening:
    async def test_one_stream_carries_the_changes_of_all(self) -> None:
        meta = {"io.modelcontextprotocol/subscriptionId": 7}
        ack = {"method": "notifications/subscriptions/acknowledged", "params": {"_meta": meta}}
        changed = {"method": "notifications/resources/updated", "params": {"uri": "file:///a", "_meta": meta}}
        crm, wiki = Fake(silent), Fake(silent)
        for fake in (crm, wiki):
            fake.emitted = [json.dumps({"jsonrpc": "2.0"} | message).encode() for message in (ack, changed)]
        seen: list[bytes] = []
        wanted = {"toolsListChanged": True, "resourceSubscriptions": ["mcp.crm+file:///a"]}
        everything = Everything(crm=crm, wiki=wiki)
        listening = asyncio.create_task(
            everything.ask("subscriptions/listen", seen.append, notifications=wanted)
        )
        await eventually(lambda: len(seen) == 3)
        messages = [json.loads(message) for message in seen]
        assert messages[0]["method"] == "notifications/subscriptions/acknowledged"
        assert messages[0]["params"] == {"notifications": wanted, "_meta": meta}
        assert {message["params"]["uri"] for message in messages[1:]} == {
            "mcp.crm+file:///a",
            "mcp.wiki+file:///a",
        }
        assert crm.asked[0]["params"]["notifications"]["resourceSubscriptions"] == ["file:///a"]
        assert wiki.asked[0]["params"]["notifications"] == {"toolsListChanged": True}
        listening.cancel()
        await eventually(lambda: crm.open == wiki.open == 0)

    async def test_a_server_that_comes_or_goes_changes_the_lists(self) -> None:
        crm, wiki, seen = Fake(silent), Fake(silent), list[bytes]()
        everything = Everything(crm=crm)
        listening = asyncio.create_task(
            everything.ask("subscriptions/listen", seen.append, notifications={"toolsListChanged": True})
        )
        await eventually(lambda: crm.open == 1)
        everything.servers = {"wiki": wiki}
        everything.changes.noticed("user.mia", b"", 1)
        everything.changes.noticed("server.wiki", b"", 2)
        await eventually(lambda: wiki.open == 1 and crm.open == 0)
        methods = [json.loads(message)["method"] for message in seen]
        assert methods == [
            "notifications/subscriptions/acknowledged",
            "notifications/tools/list_changed",
        ]
        listening.cancel()

    async def test_nobody_is_asked_for_what_the_caller_did_not_ask_for(self) -> None:
        crm, seen = Fake(silent), list[bytes]()
        listening = asyncio.create_task(
            Everything(crm=crm).ask("subscriptions/listen", seen.append, notifications={})
        )
        await eventually(lambda: seen)
        assert crm.asked == []
        listening.cancel()
