"""Lists show what the caller may use, in whatever form they come."""

import asyncio
import json

import pytest

from libs.common.control.entries import (
    Group,
    ServerAccess,
)
from tests.unit.gateway.conftest import Exchange, House, Script, token


async def test_a_denied_tool_is_refused_when_called_and_says_why(house: House) -> None:
    response = await house.call("forbidden")
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (200, -31403)
    assert response.json()["id"] == 1
    assert error["data"]["reason"] == "tool_denied"
    assert error["data"]["rule"] == "group.default"
    assert error["data"]["revision"] > 0
    assert not house.upstream.seen
    assert (await house.record())["status"] == "denied"


TOOLS = [{"name": "echo", "big": 2**70}, {"name": "forbidden"}, {"name": "other", "unknown": {"x": 1.0}}]


async def test_a_denied_tool_is_absent_from_a_list_in_json_and_the_rest_is_untouched(house: House) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.result({"tools": TOOLS, "nextCursor": "c", "extra": 2**70})

    house.upstream.script = script
    result = (await house.post(house.message("tools/list"))).json()["result"]
    assert result == {"tools": [TOOLS[0], TOOLS[2]], "nextCursor": "c", "extra": 2**70}


async def test_a_filtered_list_of_the_modern_era_is_private_and_short_lived(house: House) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.result(
            {"resultType": "complete", "tools": TOOLS, "ttlMs": 3_600_000, "cacheScope": "public"}
        )

    house.upstream.script = script
    result = (await house.post(house.message("tools/list"))).json()["result"]
    assert [tool["name"] for tool in result["tools"]] == ["echo", "other"]
    assert (result["cacheScope"], result["ttlMs"]) == ("private", 5000)


async def test_a_denied_tool_is_absent_from_a_list_inside_events(house: House) -> None:
    message = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"tools": TOOLS}}).encode()
    note = b'data: {"jsonrpc":"2.0","method":"notifications/message","params":{}}\n\n'

    async def script(exchange: Exchange) -> None:
        await exchange.open_stream()
        await exchange.event(note + b"id: 7\r\nretry: 5\r\nevent: message\r\ndata: " + message[:50])
        await exchange.event(message[50:] + b"\r\n\r\n: bye\n\n", last=True)

    house.upstream.script = script
    response = await house.post(house.message("tools/list"))
    first, listed, comment = response.content.split(b"\n\n")[:3]
    assert first + b"\n\n" == note
    assert listed.startswith(b"id: 7\nretry: 5\nevent: message\ndata: ")
    tools = json.loads(listed.split(b"data: ")[1])["result"]["tools"]
    assert [tool["name"] for tool in tools] == ["echo", "other"]
    assert comment == b": bye"
    assert response.headers["x-accel-buffering"] == "no"


async def test_a_list_replayed_on_a_get_stream_is_filtered_by_the_group_as_it_is_then(house: House) -> None:
    message = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"tools": TOOLS}}).encode()
    opened, go_on = asyncio.Event(), asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.open_stream()
        await exchange.event(b": hello\n\n")
        opened.set()
        await go_on.wait()
        await exchange.event(b"data: " + message + b"\n\n", last=True)

    house.upstream.script = script
    headers = {"authorization": f"Bearer {token()}"}
    getting = asyncio.create_task(house.client.get(f"{house.url}/mcp/demo", headers=headers))
    await asyncio.wait_for(opened.wait(), 5)
    access = ServerAccess(tools={"forbidden": "deny", "other": "deny"})
    await house.put(Group(version=2, id="default", name="E", servers={"demo": access}))
    go_on.set()
    listed = (await getting).content.split(b"data: ")[1]
    assert [tool["name"] for tool in json.loads(listed)["result"]["tools"]] == ["echo"]


@pytest.mark.parametrize("form", ["JSON with another status", "events behind a byte order mark"])
async def test_a_list_in_an_unusual_form_is_filtered_too_and_recorded_as_shown(
    house: House, form: str
) -> None:
    message = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"tools": TOOLS}}).encode()

    async def script(exchange: Exchange) -> None:
        if form.startswith("JSON"):
            await exchange.answer(message, 203)
        else:
            await exchange.open_stream()
            await exchange.event(b"\xef\xbb\xbfdata: " + message + b"\n\n", last=True)

    house.upstream.script = script
    response = await house.post(house.message("tools/list"))
    assert b'"forbidden"' not in response.content
    assert b'"other"' in response.content
    record = await house.record()
    assert '"forbidden"' not in record["output"]
    assert '"other"' in record["output"]


async def test_a_list_that_cannot_be_read_is_not_shown(house: House) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.answer(b'{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"forbidden"}')

    house.upstream.script = script
    response = await house.post(house.message("tools/list"))
    assert response.status_code == 502
    assert b"forbidden" not in response.content
    assert (await house.record())["reason"] == "upstream_bad_answer"


# -- prompts and resources -------------------------------------------------------------------------

META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}
MODERN = {"mcp_protocol_version": "2026-07-28"}
ACCESS = ServerAccess(
    tools={"forbidden": "deny"}, prompts={"secret": "deny"}, resources={"file:///secret/*": "deny"}
)
# method -> the member, what it holds, what is left of it
LISTED: dict[str, tuple[str, list[dict[str, object]], list[int]]] = {
    "tools/list": ("tools", [{"name": "forbidden"}, {"name": "secret"}], [1]),
    "prompts/list": (
        "prompts",
        [{"name": "forbidden"}, {"name": "secret"}, {"name": "b", "x": 2**70}],
        [0, 2],
    ),
    "resources/list": (
        "resources",
        [{"uri": "file:///secret/a"}, {"uri": "file:///b", "name": "forbidden"}],
        [1],
    ),
    "resources/templates/list": (
        "resourceTemplates",
        [{"uriTemplate": "file:///secret/{x}"}, {"uriTemplate": "file:///{x}"}],
        [1],
    ),
}


@pytest.mark.parametrize("events", [False, True], ids=["JSON", "events"])
@pytest.mark.parametrize("method", LISTED)
async def test_every_list_shows_what_the_caller_may_use(house: House, method: str, events: bool) -> None:
    member, entries, left = LISTED[method]
    await house.put(Group(version=2, id="default", name="E", servers={"demo": ACCESS}))

    async def script(exchange: Exchange) -> None:
        if not events:
            await exchange.result({member: entries, "nextCursor": "c"})
            return
        message = json.dumps({"jsonrpc": "2.0", "id": 1, "result": {member: entries, "nextCursor": "c"}})
        await exchange.open_stream()
        await exchange.event(b"data: " + message.encode() + b"\n\n", last=True)

    house.upstream.script = script
    response = await house.post(house.message(method))
    text = response.text.removeprefix("data: ")
    assert json.loads(text)["result"] == {member: [entries[index] for index in left], "nextCursor": "c"}


@pytest.mark.parametrize("method", LISTED)
async def test_a_modern_list_is_the_callers_alone_also_when_nothing_is_left_out(
    house: House, method: str
) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.result(
            {"resultType": "complete", LISTED[method][0]: [], "ttlMs": 10**9, "cacheScope": "public"}
        )

    house.upstream.script = script
    response = await house.post(house.message(method, {"_meta": META}), mcp_method=method, **MODERN)
    result = response.json()["result"]
    assert (result["cacheScope"], result["ttlMs"]) == ("private", 5000)


@pytest.mark.parametrize("method", ["resources/read", "server/discover"])
async def test_a_modern_result_for_caches_is_the_callers_alone_for_as_long_as_the_upstream_says(
    house: House, method: str
) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.result({"resultType": "complete", "n": 2**70, "ttlMs": 10**9, "cacheScope": "public"})

    house.upstream.script = script
    params = {"_meta": META, "uri": "file:///a"}
    body = house.message(method, params)
    response = await house.post(body, mcp_method=method, mcp_name="file:///a", **MODERN)
    wanted = {"resultType": "complete", "n": 2**70, "ttlMs": 10**9, "cacheScope": "private"}
    assert response.json()["result"] == wanted

    house.upstream.script = in_events(
        json.dumps({"jsonrpc": "2.0", "id": 1, "result": wanted | {"cacheScope": "public"}})
    )
    response = await house.post(body, mcp_method=method, mcp_name="file:///a", **MODERN)
    assert json.loads(response.text.removeprefix("data: "))["result"] == wanted


async def test_a_result_that_asks_for_input_gets_no_caching_hints(house: House) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.result({"resultType": "input_required", "requestState": "s"})

    house.upstream.script = script
    body = house.message("resources/read", {"_meta": META, "uri": "file:///a"})
    response = await house.post(body, mcp_method="resources/read", mcp_name="file:///a", **MODERN)
    assert response.json()["result"] == {"resultType": "input_required", "requestState": "s"}


@pytest.mark.parametrize("events", [False, True], ids=["JSON", "events"])
async def test_a_resource_too_long_to_be_held_passes_as_it_is(house: House, events: bool) -> None:
    result = {
        "resultType": "complete",
        "contents": [
            {"uri": "file:///a", "text": "x" * (house.gateway.settings.gateway_list_limit + 1_000_000)}
        ],
    }
    message = json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode()

    async def script(exchange: Exchange) -> None:
        if events:
            await exchange.open_stream()
            await exchange.event(b": first\n\ndata: " + message + b"\n\n: last\n\n", last=True)
        else:
            await exchange.answer(message)

    house.upstream.script = script
    body = house.message("resources/read", {"_meta": META, "uri": "file:///a"})
    response = await house.post(body, mcp_method="resources/read", mcp_name="file:///a", **MODERN)
    assert response.content == (b": first\n\ndata: " + message + b"\n\n: last\n\n" if events else message)


def in_events(message: str) -> Script:
    async def script(exchange: Exchange) -> None:
        await exchange.open_stream()
        await exchange.event(b"data: " + message.encode() + b"\n\n", last=True)

    return script


AMBIGUOUS = {
    "a list twice": '{"id":1,"result":{"tools":[{"name":"forbidden"}],"tools":[]}}',
    "a list twice, once in disguise": '{"id":1,"result":{"\\u0074ools":[{"name":"forbidden"}],"tools":[]}}',
    "a list in two cases": '{"id":1,"result":{"Tools":[{"name":"forbidden"}],"tools":[]}}',
    "a result twice": '{"id":1,"result":{"tools":[{"name":"forbidden"}]},"result":{}}',
    "a name twice": '{"id":1,"result":{"tools":[{"name":"forbidden","name":"echo"}]}}',
    "a name in two cases": '{"id":1,"result":{"tools":[{"Name":"forbidden","name":"echo"}]}}',
}


@pytest.mark.parametrize("name", AMBIGUOUS)
@pytest.mark.parametrize("events", [False, True], ids=["JSON", "events"])
async def test_a_list_that_could_be_read_in_two_ways_is_not_shown(
    house: House, name: str, events: bool
) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.answer(AMBIGUOUS[name].encode())

    house.upstream.script = in_events(AMBIGUOUS[name]) if events else script
    if events:
        with pytest.raises(Exception, match=r"peer closed|disconnected|incomplete"):
            await house.post(house.message("tools/list"))
    else:
        response = await house.post(house.message("tools/list"))
        assert response.status_code == 502
        assert b"forbidden" not in response.content
    assert (await house.record())["reason"] == "upstream_bad_answer"


async def test_lists_in_a_batch_of_answers_are_filtered_too(house: House) -> None:
    """Revision 2025-03-26 lets a server answer several requests in one event."""
    listed = '{"jsonrpc":"2.0","id":1,"result":{"tools":[{"name":"forbidden"},{"name":"echo"}]}}'
    house.upstream.script = in_events(f'[{{"jsonrpc":"2.0","method":"x"}},{listed}]')
    headers = {"authorization": f"Bearer {token()}"}
    got = await house.client.get(f"{house.url}/mcp/demo", headers=headers)
    answers = json.loads(got.text.removeprefix("data: "))
    assert answers[0] == {"jsonrpc": "2.0", "method": "x"}
    assert answers[1]["result"]["tools"] == [{"name": "echo"}]


# -- what is asked for by name ---------------------------------------------------------------------

REQUESTS: dict[str, tuple[str, dict[str, object], str]] = {
    "a prompt": ("prompts/get", {"name": "secret"}, "prompt_denied"),
    "a resource": ("resources/read", {"uri": "file:///secret/a"}, "resource_denied"),
    "a resource, spelled otherwise": ("resources/read", {"uri": "FILE:/x/..//%73ecret/a"}, "resource_denied"),
    "a subscription": ("resources/subscribe", {"uri": "file:///secret/a"}, "resource_denied"),
    "the end of one": ("resources/unsubscribe", {"uri": "file:///secret/a"}, "resource_denied"),
    "completion for a prompt": (
        "completion/complete",
        {"ref": {"type": "ref/prompt", "name": "secret"}, "argument": {"name": "x", "value": ""}},
        "prompt_denied",
    ),
    "completion for a template": (
        "completion/complete",
        {
            "ref": {"type": "ref/resource", "uri": "file:///secret/{x}"},
            "argument": {"name": "x", "value": ""},
        },
        "resource_denied",
    ),
    "updates of several resources": (
        "subscriptions/listen",
        {"notifications": {"resourceSubscriptions": ["file:///a", "file:///secret/a"]}},
        "resource_denied",
    ),
}


@pytest.mark.parametrize("name", REQUESTS)
async def test_what_the_group_may_not_use_is_refused_by_name_and_recorded(house: House, name: str) -> None:
    await house.put(Group(version=2, id="default", name="E", servers={"demo": ACCESS}))
    method, params, reason = REQUESTS[name]
    response = await house.post(house.message(method, params))
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["data"]["reason"]) == (200, -31403, reason)
    assert not house.upstream.seen
    record = await house.record()
    assert (record["status"], record["reason"], record["method"]) == ("denied", reason, method)

    await house.put(Group(version=3, id="default", name="E", servers={"demo": ServerAccess()}))
    assert "result" in (await house.post(house.message(method, params))).json()


UNNAMED: dict[str, tuple[str, dict[str, object]]] = {
    "a prompt without a name": ("prompts/get", {}),
    "a resource whose URI is a number": ("resources/read", {"uri": 5}),
    "completion for nothing": ("completion/complete", {}),
    "completion for something new": ("completion/complete", {"ref": {"type": "ref/tool", "name": "x"}}),
    "completion for two resources, one no text": (
        "completion/complete",
        {"ref": {"type": "ref/resource", "uri": "file:///a", "uriTemplate": 1}},
    ),
    "updates of what is no list": (
        "subscriptions/listen",
        {"notifications": {"resourceSubscriptions": "file:///a"}},
    ),
    "updates of what is no URI": ("subscriptions/listen", {"notifications": {"resourceSubscriptions": [1]}}),
    "updates of too many": (
        "subscriptions/listen",
        {"notifications": {"resourceSubscriptions": ["x://y"] * 257}},
    ),
}


@pytest.mark.parametrize("name", UNNAMED)
async def test_what_does_not_say_on_what_it_acts_is_refused(house: House, name: str) -> None:
    method, params = UNNAMED[name]
    response = await house.post(house.message(method, params))
    assert (response.status_code, response.json()["error"]["code"]) == (400, -32602)
    assert not house.upstream.seen
    assert (await house.record())["reason"] == "invalid_params"
