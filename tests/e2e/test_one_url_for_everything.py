"""`/mcp`: every server that a person may use at one URL, for clients of every era."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from mcp import Client, MCPError
from mcp.client.sse import sse_client

from services.gateway.aggregate.merging import UNAVAILABLE
from tests.conftest import free_port
from tests.e2e.conftest import Gate, Person, Recorder

ERAS = ["2026-07-28", "legacy", "sse"]


@asynccontextmanager
async def connected(gate: Gate, person: Person, era: str) -> AsyncIterator[Client]:
    url = f"{gate.url}/mcp"
    if era != "sse":
        async with person.client(url, era) as client:
            yield client
        return
    url += "/sse"
    async with Client(sse_client(url, auth=person.provider(url)), mode="legacy") as client:
        yield client


async def register(gate: Gate, slug: str, url: str) -> None:
    server = {"name": slug, "url": url, "auth": "none", "default_access": "allow"}
    await gate.admin.api("PUT", f"/api/policy/servers/{slug}", server)


def text_of(result: Any) -> str:
    text: str = result.content[0].text
    return text


@pytest.mark.parametrize("era", ERAS)
async def test_the_tools_of_all_servers_can_be_listed_and_called(
    gate: Gate, recorder: Recorder, era: str
) -> None:
    await register(gate, "recorder", recorder.url)
    mia = await gate.member()
    async with connected(gate, mia, era) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        assert {"demo__word_count", "recorder__echo", "recorder__whoami"} <= names
        assert text_of(await client.call_tool("recorder__echo", {"number": 7})) == "7"
        prompts = {prompt.name for prompt in (await client.list_prompts()).prompts}
        (resource,) = (await client.list_resources()).resources
        contents = (await client.read_resource(resource.uri)).contents
    assert "demo__plan_meeting" in prompts
    assert str(contents[0].uri) == str(resource.uri)
    assert str(resource.uri).startswith("mcp.demo+")
    (record,) = await gate.recorded(server="recorder", tool="echo")
    assert (record["status"], record["email"]) == ("ok", "mia@example.com")


async def test_a_server_that_is_down_costs_its_own_tools_only_and_says_so(gate: Gate) -> None:
    await register(gate, "gone", f"http://127.0.0.1:{free_port()}/mcp")
    async with connected(gate, await gate.member(), "2026-07-28") as client:
        listed = await client.list_tools()
        assert "demo__word_count" in {tool.name for tool in listed.tools}
        assert listed.meta
        assert "refuses connections" in listed.meta[UNAVAILABLE]["gone"]
        with pytest.raises(MCPError, match="gone: it refuses connections"):
            await client.call_tool("gone__anything", {})


async def test_what_a_person_may_not_use_is_not_there(gate: Gate, recorder: Recorder) -> None:
    await register(gate, "recorder", recorder.url)
    access = {"default": "allow", "tools": {"echo": "deny"}}
    await gate.admin.api("PUT", "/api/policy/groups/default/servers/recorder", access)
    await gate.switch("demo", enabled=False)
    async with connected(gate, await gate.member(), "2026-07-28") as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == ["recorder__whoami"]
        with pytest.raises(MCPError, match="your group may not use the tool 'echo'"):
            await client.call_tool("recorder__echo", {"number": 1})
    assert recorder.calls() == []
