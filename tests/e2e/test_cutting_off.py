"""What is cut off is off on the next request, on every replica; what is allowed again works again."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from mcp import MCPError

from tests.e2e.conftest import Gate, Recorder, started

pytestmark = pytest.mark.asyncio(loop_scope="module")

META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}


async def call(http: httpx2.AsyncClient, url: str, token: str) -> httpx2.Response:
    """One modern tool call by hand, with nothing but a token."""
    params = {"name": "word_count", "arguments": {"text": "a b"}, "_meta": META}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    headers = {
        "authorization": f"Bearer {token}",
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": "2026-07-28",
        "mcp-method": "tools/call",
        "mcp-name": "word_count",
    }
    return await http.post(url, json=body, headers=headers)


def payload(response: httpx2.Response) -> dict[str, Any]:
    """The JSON-RPC message of an answer that is JSON or one event."""
    text = response.text
    if response.headers.get("content-type", "").startswith("text/event-stream"):
        text = next(line for line in text.splitlines() if line.startswith("data: {"))[6:]
    message: dict[str, Any] = json.loads(text)
    return message


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gate(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gate]:
    """One for all tests here: each has a person of its own."""
    async with started(tmp_path_factory.mktemp("gate")) as gate:
        yield gate


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def urls(gate: Gate) -> list[str]:
    """Of the demo server on two replicas: the embedded one and a process beside it."""
    beside = await gate.replica("second")
    return [gate.server("demo"), f"{beside.url}/mcp/demo"]


@pytest_asyncio.fixture(loop_scope="module")
async def on_again(gate: Gate) -> AsyncIterator[None]:
    """The demo server is switched on after the test."""
    yield
    await gate.switch("demo", enabled=True)


async def test_a_server_switched_off_is_refused_on_every_replica_until_it_is_on_again(
    gate: Gate, urls: list[str], on_again: None
) -> None:
    http, mia = await gate.http(), await gate.member("mia-waits")
    token = await mia.bearer(urls[0])
    for url in urls:
        assert "result" in payload(await call(http, url, token))

    off = await gate.admin.api(
        "PUT", "/api/policy/servers/demo/switch", {"enabled": False, "reason": "audit"}
    )
    for url in urls:
        error = payload(await call(http, url, token))["error"]
        assert error["data"]["reason"] == "server_disabled"
        assert "audit" in error["message"]
    assert off["receipt"]["complete"]
    assert [replica["state"] for replica in off["receipt"]["replicas"]] == ["applied", "applied"]

    await gate.switch("demo", enabled=True)
    for url in urls:
        assert "result" in payload(await call(http, url, token))


async def test_a_running_call_ends_when_its_server_is_switched_off(gate: Gate, on_again: None) -> None:
    mia = await gate.member("mia-runs")
    async with mia.client(gate.server("demo")) as client:
        started = asyncio.Event()

        async def on_progress(progress: float, total: float | None, message: str | None) -> None:
            started.set()

        slow = client.call_tool("slow", {"seconds": 30}, progress_callback=on_progress)
        running = asyncio.create_task(slow)
        await asyncio.wait_for(started.wait(), 10)
        await gate.switch("demo", enabled=False)
        async with asyncio.timeout(10):
            (outcome,) = await asyncio.gather(running, return_exceptions=True)
    assert isinstance(outcome, MCPError)
    (record,) = await gate.recorded(tool="slow", user=mia.email)
    assert (record["status"], record["reason"]) == ("denied", "server_disabled")


async def test_a_grant_that_a_person_disconnects_is_refused_on_every_replica(
    gate: Gate, urls: list[str]
) -> None:
    http, mia = await gate.http(), await gate.member("mia-disconnects")
    token = await mia.bearer(urls[0])
    (grant,) = (await mia.browser.api("GET", "/api/auth/grants"))["items"]
    answer = await mia.browser.api("DELETE", f"/api/auth/grants/{grant['id']}")
    assert answer["receipt"]["complete"]
    for url in urls:
        response = await call(http, url, token)
        assert response.status_code == 401
        assert "invalid_token" in response.headers["www-authenticate"]
    async with asyncio.timeout(5):
        while "token_revoked" not in await reasons_of_events(gate):
            await asyncio.sleep(0.05)


async def reasons_of_events(gate: Gate) -> set[str]:
    events = await gate.admin.api("GET", "/api/activity/auth-events")
    return {event["reason"] for event in events["items"]}


async def test_a_person_who_is_deactivated_is_out_everywhere_at_once(gate: Gate, urls: list[str]) -> None:
    http, mia = await gate.http(), await gate.member("mia-leaves")
    token = await mia.bearer(urls[0])
    users = (await gate.admin.api("GET", "/api/auth/users"))["items"]
    user = next(user for user in users if user["email"] == mia.email)
    answer = await gate.admin.api("PATCH", f"/api/auth/users/{user['id']}", {"active": False})
    assert answer["receipt"]["complete"]
    for url in urls:
        assert (await call(http, url, token)).status_code == 401
    assert (await mia.browser.page("/account")).status_code == 303  # to the login


async def test_a_member_cannot_reach_what_is_an_administrators(gate: Gate) -> None:
    mia = await gate.member("mia-curious")
    for path in ("/servers", "/groups", "/users", "/credentials/master-key"):
        assert (await mia.browser.page(path)).status_code == 403
    for path in ("/api/policy/servers", "/api/auth/users", "/api/credentials"):
        response = await mia.browser._http.get(gate.url + path)
        assert response.status_code == 403, path
    disabled = {"enabled": False, "reason": ""}
    headers = {"sec-fetch-site": "same-origin"}
    url = f"{gate.url}/api/policy/servers/demo/switch"
    assert (await mia.browser._http.put(url, json=disabled, headers=headers)).status_code == 403


def content(path: Path) -> bytes:
    """What a file holds; nothing if it is a directory, or gone by now (segments and merged parts go)."""
    try:
        return path.read_bytes()
    except (FileNotFoundError, IsADirectoryError):
        return b""


async def test_the_upstream_gets_the_key_and_never_the_token_and_the_caller_never_the_key(
    gate: Gate, recorder: Recorder
) -> None:
    secret = "k-3d1f9c0a7b"
    server = {"name": "Recorder", "url": recorder.url, "auth": "api_key", "default_access": "allow"}
    await gate.admin.api("PUT", "/api/policy/servers/recorder", server)
    credential = {"header": "X-Api-Key", "key": secret}
    stored = await gate.admin.api("PUT", "/api/credentials/recorder/organization", credential)
    assert secret not in json.dumps(stored)

    mia, url = await gate.member("mia-calls"), gate.server("recorder")
    async with mia.client(url) as client:
        result = await client.call_tool("whoami", {})
        assert secret not in result.model_dump_json()
    assert mia.tokens.tokens
    token = mia.tokens.tokens.access_token
    requests = recorder.requests()
    assert requests
    assert {request["headers"].get("x-api-key") for request in requests} == {secret}
    assert token not in json.dumps(requests)
    raw = await call(await gate.http(), url, token)
    assert secret not in raw.text + str(raw.headers)

    await gate.recorded(tool="whoami")
    assert gate.process
    assert not [path.name for path in gate.data.rglob("*") if secret.encode() in content(path)]
    assert secret not in gate.process.output
    assert token not in gate.process.output


async def test_a_token_for_one_server_does_not_open_another(gate: Gate, recorder: Recorder) -> None:
    server = {"name": "Recorder", "url": recorder.url, "auth": "none", "default_access": "allow"}
    await gate.admin.api("PUT", "/api/policy/servers/recorder", server)
    mia = await gate.member("mia-strays")
    token = await mia.bearer(gate.server("demo"))
    response = await call(await gate.http(), gate.server("recorder"), token)
    assert response.status_code == 401
    assert not recorder.requests()
