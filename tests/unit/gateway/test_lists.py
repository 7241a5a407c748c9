"""Lists show what the caller may use, in whatever form they come."""

import asyncio
import json

import pytest

from libs.common.control.entries import (
    Group,
    ServerAccess,
)
from tests.unit.gateway.conftest import Exchange, House, token


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
