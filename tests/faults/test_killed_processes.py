"""Processes that get really killed: each admitted call is one row in ClickHouse, no more and no less."""

import asyncio
import json
from typing import Any

import httpx2

from tests.e2e.conftest import Fleet, Gate, Recorder

CALLS = 200


async def call(http: httpx2.AsyncClient, url: str, token: str, number: int, delay: float = 0.0) -> bool:
    """One call of the tool `echo`. Returns whether its answer came."""
    params = {"name": "echo", "arguments": {"number": number, "delay": delay}}
    body = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}
    headers = {"authorization": f"Bearer {token}", "accept": "application/json, text/event-stream"}
    try:
        return "result" in (await http.post(url, json=body, headers=headers)).json()
    except (httpx2.TransportError, json.JSONDecodeError):
        return False


async def numbers_of(gate: Gate, calls: list[dict[str, Any]]) -> list[int]:
    """What each recorded call was called with."""
    numbers = []
    for item in calls:
        full = await gate.admin.api("GET", f"/api/activity/calls/{item['id']}")
        numbers.append(json.loads(full["input"])["arguments"]["number"])
    return numbers


async def register(gate: Gate, recorder: Recorder) -> str:
    """The recorder as a server, and a token for it."""
    server = {"name": "Recorder", "url": recorder.url, "auth": "none", "default_access": "allow"}
    await gate.admin.api("PUT", "/api/policy/servers/recorder", server)
    mia = await gate.member()
    return await mia.bearer(gate.server("recorder"))


async def settled(gate: Gate, at_least: int) -> list[dict[str, Any]]:
    """The recorded calls of `echo`, once there are enough and no more are coming."""
    calls = await gate.recorded(at_least, within=30, tool="echo")
    while True:
        await asyncio.sleep(1)  # whatever would come twice comes now
        again = await gate.calls(tool="echo")
        if len(again) == len(calls):
            return again
        calls = again


async def test_a_gateway_killed_in_the_middle_of_200_calls_leaves_one_row_for_each(
    gate: Gate, recorder: Recorder
) -> None:
    token = await register(gate, recorder)
    replica = await gate.replica("second")
    url = f"{replica.url}/mcp/recorder"
    limits = httpx2.Limits(max_connections=40)
    async with httpx2.AsyncClient(timeout=30, limits=limits) as http:
        calls = [asyncio.create_task(call(http, url, token, n, 0.05)) for n in range(CALLS)]
        while len(recorder.calls()) < CALLS // 2:
            await asyncio.sleep(0.005)
        replica.kill()
        answered = await asyncio.gather(*calls)
    assert 0 < sum(answered) < CALLS, "it was killed in the middle"

    await replica.start()  # the same journal directory, so the same replica
    reached = [arguments["number"] for arguments in recorder.calls()]
    recorded = await settled(gate, len(reached))
    numbers = await numbers_of(gate, recorded)
    assert len(numbers) == len(set(numbers)), "no call twice"
    assert set(reached) <= set(numbers), "every call that ran is recorded"
    assert {n for n, came in enumerate(answered) if came} <= set(numbers)
    assert {item["status"] for item in recorded} == {"ok", "unknown"}


async def test_activity_killed_in_the_middle_of_inserting_leaves_one_row_for_each(
    fleet: Fleet, recorder: Recorder
) -> None:
    gate, activity = fleet.gate, fleet.services["activity"]
    token = await register(gate, recorder)
    url = f"{fleet.services['gateway'].url}/mcp/recorder"
    async with httpx2.AsyncClient(timeout=30, limits=httpx2.Limits(max_connections=20)) as http:
        for wave in range(4):
            numbers = range(wave * CALLS // 4, (wave + 1) * CALLS // 4)
            calls = [asyncio.create_task(call(http, url, token, n)) for n in numbers]
            while len(recorder.calls()) < numbers[len(numbers) // 2]:
                await asyncio.sleep(0.005)
            activity.kill()  # calls go on: ClickHouse away never stops one
            assert all(await asyncio.gather(*calls))
            await activity.start()

    recorded = await settled(gate, CALLS)
    assert sorted(await numbers_of(gate, recorded)) == list(range(CALLS))
    assert {item["status"] for item in recorded} == {"ok"}


async def test_nats_killed_and_back_loses_no_record_and_no_switch(
    fleet: Fleet, recorder: Recorder, nats: Any
) -> None:
    gate = fleet.gate
    token = await register(gate, recorder)
    url = f"{fleet.services['gateway'].url}/mcp/recorder"
    async with httpx2.AsyncClient(timeout=30) as http:
        assert await call(http, url, token, 0)
        nats.process.kill()
        nats.process.wait()
        assert await call(http, url, token, 1), "the lease still holds"
        nats.start()
        async with asyncio.timeout(30):
            while not await call(http, url, token, 2):
                await asyncio.sleep(0.1)
        off = await gate.admin.api(
            "PUT", "/api/policy/servers/recorder/switch", {"enabled": False, "reason": ""}
        )
        assert off["receipt"]["complete"]
        assert not await call(http, url, token, 3)
    recorded = await settled(gate, 4)
    numbers = await numbers_of(gate, recorded)
    assert {0, 1, 2, 3} <= set(numbers)
    statuses = {n: item["status"] for n, item in zip(numbers, recorded, strict=True) if n in {0, 1, 3}}
    assert statuses == {0: "ok", 1: "ok", 3: "denied"}
