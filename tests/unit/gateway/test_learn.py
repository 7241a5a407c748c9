"""`gateway.learn`: what a server offers, whatever it speaks."""

import json
from typing import Any

import pytest

from libs.common.bus import Refused
from libs.common.control.entries import Processes, Server
from libs.common.requests import (
    LEARN,
    LIST_PROCESSES,
    Learned,
    LearnServer,
    ListProcesses,
    OpenCredential,
    ProcessList,
    ProcessReport,
)
from services.gateway.learn import DESCRIPTION, PAGES
from tests.conftest import eventually
from tests.unit.gateway import mcp_servers, stdio_made
from tests.unit.gateway.conftest import Exchange, House, Script
from tests.unit.gateway.raw_upstream import listening, saying, silent

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


# -- what goes wrong is an error in a sentence ------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            b"HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n",
            "It answered with HTTP status 401: it wants a credential",
        ),
        (b"HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n", "It forbids this"),
        (
            b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n",
            r"There is no MCP server at its URL \(HTTP 404\)\.",
        ),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", r"It "),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "What came is not an HTTP answer"),
    ],
    ids=["401", "403", "404", "another site", "another protocol"],
)
async def test_what_is_no_mcp_server_is_named_as_what_it_is(house: House, answer: bytes, said: str) -> None:
    async with listening(saying(*[answer] * 4)) as port:
        await house.put(Server(version=1, slug="odd", name="Odd", url=f"http://127.0.0.1:{port}/mcp"))
        with pytest.raises(Refused, match=f"^{said}"):
            await learn(house, "odd")


async def test_a_server_that_never_answers_is_given_up_in_time(house: House) -> None:
    async with listening(silent) as port:
        await house.put(Server(version=1, slug="mute", name="Mute", url=f"http://127.0.0.1:{port}/mcp"))
        with pytest.raises(Refused, match=r"^It did not answer within 0\.3 seconds\.$"):
            await learn(house, "mute", within=0.3)


# -- a scripted server, of the modern era -----------------------------------------------------------


def offering(capabilities: dict[str, Any], tools: Script) -> Script:
    """Answers `server/discover`; `tools` answers every `tools/list`."""

    async def answer(exchange: Exchange) -> None:
        if exchange.message["method"] == "tools/list":
            return await tools(exchange)
        found = {"resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": capabilities}
        return await exchange.result(found | {"serverInfo": {"name": "scripted", "version": "1"}})

    return answer


def page(*tools: dict[str, Any], then: str | None = None) -> dict[str, Any]:
    return {"resultType": "complete", "tools": list(tools)} | ({"nextCursor": then} if then else {})


async def test_every_page_of_a_list_is_read_and_descriptions_are_their_first_lines(house: House) -> None:
    pages = {
        None: page({"name": "a", "description": "Adds.\nAt length."}, {"name": "b"}, then="2"),
        "2": page({"name": "c", "description": "x" * 500}, {"no": "name"}),
    }

    async def tools(exchange: Exchange) -> None:
        await exchange.result(pages[exchange.message["params"].get("cursor")])

    house.upstream.script = offering({"tools": {}}, tools)
    learned = await learn(house, "demo")
    assert [(tool.name, tool.description) for tool in learned.tools] == [
        ("a", "Adds."),
        ("b", ""),
        ("c", "x" * DESCRIPTION),
    ]


async def test_a_list_without_an_end_is_given_up(house: House) -> None:
    async def tools(exchange: Exchange) -> None:
        await exchange.result(page({"name": "a"}, then="again"))

    house.upstream.script = offering({"tools": {}}, tools)
    with pytest.raises(Refused, match="does not come to an end"):
        await learn(house, "demo")
    asked = [exchange for exchange in house.upstream.seen if exchange.message["method"] == "tools/list"]
    assert len(asked) == PAGES


async def test_lists_that_the_server_does_not_have_are_not_asked_for(house: House) -> None:
    async def tools(exchange: Exchange) -> None:
        await exchange.result(page())

    house.upstream.script = offering({}, tools)
    assert await learn(house, "demo") == Learned()
    assert {exchange.message["method"] for exchange in house.upstream.seen} == {"server/discover"}


@pytest.mark.parametrize("broken", [{"tools": "none"}, {"tools": [1, 2]}, {"tools": {"a": 1}}])
async def test_a_broken_list_is_named_as_such(house: House, broken: dict[str, Any]) -> None:
    async def tools(exchange: Exchange) -> None:
        await exchange.result(broken | {"resultType": "complete"})

    house.upstream.script = offering({"tools": {}}, tools)
    with pytest.raises(Refused, match=r"^It answered with what is no list\.$"):
        await learn(house, "demo")


async def test_the_organizations_credential_is_sent(house: House, vault: list[OpenCredential]) -> None:
    async def tools(exchange: Exchange) -> None:
        await exchange.result(page({"name": "a"}))

    house.upstream.script = offering({"tools": {}}, tools)
    assert [tool.name for tool in (await learn(house, "keyed")).tools] == ["a"]
    assert {exchange.headers["x-api-key"] for exchange in house.upstream.seen} == {"s3cret-1"}
    assert [(query.user, query.asker) for query in vault] == [("organization", "gateway")]


async def test_words_of_the_server_that_may_repeat_the_credential_are_not_passed_on(
    house: House, vault: list[OpenCredential]
) -> None:
    async def tools(exchange: Exchange) -> None:
        error = {"code": -32000, "message": f"bad key {exchange.headers['x-api-key'][::-1]}"}
        message = {"jsonrpc": "2.0", "id": exchange.message["id"], "error": error}
        await exchange.answer(json.dumps(message).encode())

    house.upstream.script = offering({"tools": {}}, tools)
    with pytest.raises(Refused, match=r"^It answered tools/list with the error -32000\.$"):
        await learn(house, "keyed")


async def test_a_server_that_refuses_the_credential_is_told_apart(
    house: House, vault: list[OpenCredential]
) -> None:
    async def refuse(exchange: Exchange) -> None:
        await exchange.answer(exchange.headers["x-api-key"].encode(), 401)

    house.upstream.script = refuse
    with pytest.raises(Refused, match="refuses the one it got") as refused:
        await learn(house, "keyed")
    assert "s3cret" not in refused.value.detail


async def test_a_credential_that_the_vault_does_not_give_is_the_reason(house: House) -> None:
    await house.store_credential()
    with pytest.raises(Refused, match="Its credential cannot be had now"):
        await learn(house, "keyed")
    assert house.upstream.seen == []


# -- commands ---------------------------------------------------------------------------------------


@pytest.fixture
def commands(house: House) -> House:
    """A replica that runs them."""
    processes = house.gateway.processes
    processes._settings = processes._settings.model_copy(update={"gateway_stdio": "on"})
    return house


def command(era: str = "legacy", **fields: Any) -> Server:
    given: dict[str, Any] = {"command": stdio_made.real(era), "environment": stdio_made.REAL}
    return Server(version=1, slug="tools", name="Tools", transport="stdio", **given | fields)


async def running(house: House, state: str = "running") -> list[ProcessReport]:
    answer = await house.bus.request(LIST_PROCESSES, ListProcesses(), ProcessList)
    return [process for process in answer.processes if process.state == state]


@pytest.mark.parametrize(
    ("era", "processes"), [("legacy", "shared"), ("dual", "user"), ("legacy", "session"), ("dual", "session")]
)
async def test_the_command_of_a_server_that_is_off_runs_only_for_the_question(
    commands: House, era: str, processes: Processes
) -> None:
    await commands.put(command(era, enabled=False, processes=processes))
    assert await running(commands) == []
    learned = await learn(commands, "tools", within=30.0)
    assert "echo" in {tool.name for tool in learned.tools}
    assert await running(commands) == []
    [report] = await running(commands, "stopped")
    await eventually(lambda: not (report.pid and stdio_made.alive(report.pid)))


async def test_a_question_that_takes_too_long_ends_the_command(commands: House) -> None:
    await commands.put(command(enabled=False, command=["sleep", "600"]))
    with pytest.raises(Refused, match=r"within 0\.5 seconds"):
        await learn(commands, "tools", within=0.5)
    assert await running(commands) == await running(commands, "starting") == []


async def test_the_process_of_a_server_that_is_on_is_kept_and_asked_again(commands: House) -> None:
    await commands.put(command())
    await learn(commands, "tools", within=30.0)
    before = await running(commands)
    await learn(commands, "tools", within=30.0)
    assert before == await running(commands) != []
