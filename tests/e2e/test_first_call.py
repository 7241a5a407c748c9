"""From a server's URL to a recorded call, with the official client and nothing but that URL."""

import asyncio
import subprocess
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from mcp import MCPError

from tests.e2e.conftest import LOCKGATE, Gate, environment, started

DEMO_FOR_ALL = "/api/policy/groups/default/servers/demo"

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gate(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gate]:
    """One for all tests here: each has a person of its own."""
    async with started(tmp_path_factory.mktemp("gate")) as gate:
        yield gate


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_the_official_client_signs_in_lists_and_calls_and_the_call_is_seen(
    gate: Gate, mode: str
) -> None:
    mia = await gate.member(f"mia-{mode}")
    async with mia.client(gate.server("demo"), mode) as client:
        tools = {tool.name for tool in (await client.list_tools()).tools}
        assert {"now", "word_count", "convert", "slow", "fail"} <= tools
        result = await client.call_tool("word_count", {"text": "one two three"})
        finished = time.monotonic()
        assert not result.is_error
        (call,) = await gate.recorded(tool="word_count", user=mia.email)
        assert time.monotonic() - finished < 2, "an administrator sees the call within two seconds"
        failed = await client.call_tool("fail", {})
        assert failed.is_error
    assert (call["email"], call["server"], call["status"]) == (mia.email, "demo", "ok")
    assert mia.logins == 1
    page = await gate.admin.page("/activity")
    assert page.status_code == 200
    assert "word_count" in page.text and "one two three" in page.text
    (error,) = await gate.recorded(tool="fail", user=mia.email)
    assert error["status"] == "error"


async def test_progress_of_a_slow_tool_arrives_while_it_runs(gate: Gate) -> None:
    seen: list[float] = []

    async def on_progress(progress: float, total: float | None, message: str | None) -> None:
        seen.append(time.monotonic())

    mia = await gate.member("mia-waits")
    async with mia.client(gate.server("demo")) as client:
        await client.call_tool("slow", {"seconds": 1}, progress_callback=on_progress)
        finished = time.monotonic()
    assert seen
    assert seen[0] < finished - 0.3


async def test_a_tool_denied_for_the_group_is_neither_listed_nor_run(gate: Gate) -> None:
    await gate.admin.api("PUT", DEMO_FOR_ALL, {"default": "allow", "tools": {"now": "deny"}})
    mia = await gate.member("mia-denied")
    async with mia.client(gate.server("demo")) as client:
        tools = {tool.name for tool in (await client.list_tools()).tools}
        assert "now" not in tools
        assert "word_count" in tools
        with pytest.raises(MCPError, match="may not use the tool 'now'"):
            await client.call_tool("now", {})
    await gate.admin.api("PUT", DEMO_FOR_ALL, {"default": "allow", "tools": {}})
    (call,) = await gate.recorded(tool="now", user=mia.email)
    assert (call["status"], call["reason"]) == ("denied", "tool_denied")


async def test_a_client_refreshes_without_asking_anybody(gate: Gate) -> None:
    mia, url = await gate.member("mia-refreshes"), gate.server("demo")
    async with mia.client(url) as client:
        first = mia.tokens.tokens
        assert mia.oauth
        mia.oauth.context.token_expiry_time = 1  # as if the hour were over
        await client.list_tools()
        second = mia.tokens.tokens
    assert first and second
    assert second.access_token != first.access_token
    assert second.refresh_token != first.refresh_token
    assert mia.logins == 1


async def test_everything_is_there_again_after_a_restart(gate: Gate) -> None:
    mia, url = await gate.member("mia-returns"), gate.server("demo")
    async with mia.client(url) as client:
        await client.call_tool("word_count", {"text": "before"})
    await gate.recorded(tool="word_count", user=mia.email)
    assert gate.process
    gate.process.stop()
    await gate.process.start()
    assert gate.process.output.count("Password:") == 1
    async with mia.client(url) as client:
        await client.call_tool("word_count", {"text": "after"})
    assert mia.logins == 1
    assert len(await gate.recorded(2, tool="word_count", user=mia.email)) == 2


async def test_a_second_start_on_the_same_data_says_so_and_leaves_the_first_alone(gate: Gate) -> None:
    command = [str(LOCKGATE), "up", "--data", str(gate.data), "--port", "0"]
    second = await asyncio.to_thread(
        subprocess.run, command, env=environment(), capture_output=True, text=True
    )
    assert second.returncode == 1
    assert str(gate.data) in second.stderr + second.stdout
    mia = await gate.member("mia-stays")
    async with mia.client(gate.server("demo")) as client:
        await client.list_tools()
