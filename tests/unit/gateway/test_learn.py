"""`gateway.learn`: what a server offers, whatever it speaks."""

import pytest

from libs.common.bus import Refused
from libs.common.control.entries import Server
from libs.common.requests import LEARN, Learned, LearnServer
from tests.unit.gateway import mcp_servers
from tests.unit.gateway.conftest import House

APPS = {
    "legacy": mcp_servers.legacy_app,
    "modern": mcp_servers.modern_only_app,
    "both": mcp_servers.modern_and_legacy_app,
    "sse": mcp_servers.sse_app,
}


async def learn(house: House, slug: str, version: int = 0, within: float = 5.0) -> Learned:
    query = LearnServer(slug=slug, version=version, within=within)
    return await house.bus.request(LEARN, query, Learned, timeout=within + 2)


@pytest.mark.parametrize("kind", APPS)
async def test_everything_is_listed_even_of_a_server_that_is_off_and_nothing_is_recorded(
    house: House, kind: str
) -> None:
    async with mcp_servers.served(APPS[kind]()) as origin:
        path, transport = ("/sse", "sse") if kind == "sse" else ("/mcp", "streamable_http")
        off = Server(version=1, slug="new", name="New", url=origin + path, transport=transport, enabled=False)  # type: ignore[arg-type]
        await house.put(off)
        learned = await learn(house, "new", version=1)
    tools = {tool.name: tool.description for tool in learned.tools}
    assert tools["count"] == "Progress at each number."
    assert [prompt.name for prompt in learned.prompts] == ["introduce"]
    assert [resource.name for resource in learned.resources] == ["demo://greeting"]
    assert house.records() == []


async def test_a_server_that_is_down_is_an_error_in_a_sentence(house: House) -> None:
    await house.put(Server(version=1, slug="down", name="Down", url="http://127.0.0.1:1/mcp"))
    with pytest.raises(Refused, match=r"^It refuses connections\.$"):
        await learn(house, "down")


async def test_a_server_without_its_credential_is_not_asked(house: House) -> None:
    with pytest.raises(Refused, match="The organization has no credential for it"):
        await learn(house, "keyed")
    assert house.upstream.seen == []


async def test_a_server_that_nobody_registered_is_not_found(house: House) -> None:
    with pytest.raises(Refused, match="There is no server nowhere"):
        await learn(house, "nowhere")


async def test_an_entry_that_does_not_come_is_waited_for_only_so_long(house: House) -> None:
    with pytest.raises(Refused, match=r"within 0\.2 seconds"):
        await learn(house, "demo", version=99, within=0.2)
