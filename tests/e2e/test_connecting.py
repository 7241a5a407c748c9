"""People connect their accounts at a server's own provider, and their calls go on, whatever tokens do.

The provider is a real one, and the upstream asks it about each token.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
import pytest_asyncio
from mcp import MCPError

from tests.e2e.by_hand import call_tool, token_of
from tests.e2e.conftest import Gate, started
from tests.e2e.guarded import PRIVATE, Guarded
from tests.e2e.people import Person
from tests.e2e.test_cutting_off import payload
from tests.front import Front
from tests.providers.running import OAuthProvider, provider_processes, renewed

__all__ = ["provider_processes"]

pytestmark = pytest.mark.asyncio(loop_scope="module")

AT_ONCE = 200
numbers = itertools.count(1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gate(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gate]:
    """One for all tests here: each has a server and a person of its own."""
    async with started(tmp_path_factory.mktemp("gate"), variables=PRIVATE) as gate:
        yield gate


@pytest_asyncio.fixture(loop_scope="module")
async def provider(provider_processes: tuple[str, str]) -> AsyncIterator[OAuthProvider]:
    async with renewed(*provider_processes) as running:
        yield running


@pytest_asyncio.fixture(loop_scope="module")
async def guarded(gate: Gate, provider: OAuthProvider) -> Guarded:
    guarded = Guarded(gate, provider, f"guarded-{next(numbers)}")
    await guarded.register()
    return guarded


@pytest_asyncio.fixture(loop_scope="module")
async def mia(gate: Gate) -> Person:
    return await gate.member(f"mia{next(numbers)}")


async def refused(guarded: Guarded, person: Person, *reasons: str, mode: str = "auto") -> str:
    """A call is refused for one of the reasons. Returns the page to which the error leads."""
    with pytest.raises(MCPError) as caught:
        await guarded.echo(person, "refused", mode)
    assert caught.value.error.data["reason"] in reasons
    return guarded.link_in(caught.value)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_whoever_has_not_connected_is_told_where_to_and_then_calls_as_themselves(
    gate: Gate, guarded: Guarded, mia: Person, mode: str
) -> None:
    link = await refused(guarded, mia, "credential_missing", mode=mode)
    _, page = await guarded.connect(mia, page=link)
    assert f"You are connected to {guarded.slug} as ada@example.com." in page
    assert await guarded.echo(mia, "hello", mode) == "Echo: hello"
    (call,) = await gate.recorded(server=guarded.slug, tool="echo", status="ok")
    assert call["email"] == mia.email


async def test_a_token_that_expires_is_renewed_and_nobody_notices(
    gate: Gate, guarded: Guarded, mia: Person, provider: OAuthProvider
) -> None:
    await provider.set(lifetime=4)
    await guarded.connect(mia)
    async with mia.client(guarded.url) as client:
        await client.call_tool("echo", {"message": "before"})
        async with asyncio.timeout(30):
            while not await provider.count("refreshes"):
                await client.call_tool("echo", {"message": "meanwhile"})
        await client.call_tool("echo", {"message": "after"})
    await gate.recorded(3, server=guarded.slug, tool="echo")
    assert {call["status"] for call in await gate.calls(server=guarded.slug, methods="all")} == {"ok"}


async def test_a_token_that_the_upstream_refuses_is_renewed_once_and_the_call_succeeds(
    gate: Gate, guarded: Guarded, mia: Person, provider: OAuthProvider
) -> None:
    await guarded.connect(mia)
    async with mia.client(guarded.url) as client:
        await client.call_tool("echo", {"message": "before"})
        await provider.do("expire")
        await client.call_tool("echo", {"message": "after"})
    assert await provider.count("refresh_requests") == 1
    calls = await gate.recorded(2, server=guarded.slug, tool="echo")
    assert [call["status"] for call in calls] == ["ok", "ok"], "one record, also for what was sent twice"


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_what_was_revoked_at_the_provider_is_a_clear_error_until_it_is_connected_again(
    guarded: Guarded, mia: Person, provider: OAuthProvider, mode: str
) -> None:
    await guarded.connect(mia)
    assert await guarded.echo(mia, "before", mode) == "Echo: before"
    await provider.do("revoke")
    # Whoever finds it out is told what the upstream said, whoever comes then what the provider said.
    link = await refused(guarded, mia, "upstream_unauthorized", "credential_attention", mode=mode)
    assert "Needs attention" in (await mia.browser.page("/credentials")).text
    asked = await provider.count("refresh_requests")
    assert await refused(guarded, mia, "credential_attention", mode=mode) == link
    assert await provider.count("refresh_requests") == asked, "it is not asked again and again"
    await guarded.connect(mia, "Reconnect", link)
    assert await guarded.echo(mia, "again", mode) == "Echo: again"


async def test_whoever_disconnects_is_out_at_once_and_the_provider_is_told(
    guarded: Guarded, mia: Person, provider: OAuthProvider
) -> None:
    await guarded.connect(mia)
    assert await guarded.echo(mia, "before") == "Echo: before"
    await guarded.disconnect(mia)
    await refused(guarded, mia, "credential_missing")
    async with asyncio.timeout(10):
        while not await provider.count("revocations"):
            await asyncio.sleep(0.05)


# -- many at once ---------------------------------------------------------------------------------


@pytest_asyncio.fixture(loop_scope="module")
async def front() -> AsyncIterator[Front]:
    front = Front()
    await front.start()
    yield front
    await front.stop()


async def test_two_hundred_calls_with_an_expired_token_over_three_replicas_cause_one_refresh(
    front: Front, tmp_path: Path, provider: OAuthProvider
) -> None:
    async with started(tmp_path, front, PRIVATE) as gate:
        front.replicas = [front.services, *[(await gate.replica(name)).url for name in ("second", "third")]]
        guarded, mia = Guarded(gate, provider), await gate.member()
        await guarded.register()
        token = await token_of(mia, guarded.url)
        await guarded.connect(mia)

        async def call(number: int) -> str:
            answer = payload(await call_tool(http, guarded.url, token, "echo", {"message": str(number)}))
            return str(answer["result"]["content"][0]["text"] if "result" in answer else answer)

        limits = httpx2.Limits(max_connections=AT_ONCE)
        async with httpx2.AsyncClient(timeout=60, limits=limits) as http:
            warm = await asyncio.gather(*map(call, range(6)))
            assert warm == [f"Echo: {number}" for number in range(6)]
            await provider.do("expire")
            await provider.set(slow=0.3)
            front.requests.clear()
            answers = await asyncio.gather(*map(call, range(AT_ONCE)))
        assert answers == [f"Echo: {number}" for number in range(AT_ONCE)]
        assert {replica for replica, _ in front.requests} == set(front.replicas)
        counts = (await provider.state())["counts"]
        assert (counts["refresh_requests"], counts["refreshes"]) == (1, 1)
