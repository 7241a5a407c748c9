"""`lockgate serve gateway --workers N`: several replicas behind one port."""

import asyncio
import os
import signal
from pathlib import Path

import httpx2

from libs.common.clock import iso, now
from libs.common.ids import new_id
from libs.common.journal import Journal
from libs.common.records import AuthEvent
from services.embedded.workers import WORKERS
from services.gateway.app import journal_directory
from tests.conftest import eventually
from tests.e2e.conftest import Gate, Process
from tests.e2e.test_cutting_off import call, payload


def workers_of(gate: Gate) -> list[int]:
    """The process ids of the workers that serve."""
    return [int(path.read_text()) for path in gate.data.with_name("crowd").glob(f"{WORKERS}/worker-*/ready")]


async def call_until_two_served(gate: Gate, process: Process, token: str) -> int:
    """Calls on connections of their own until two workers have served some. Returns the number of calls."""
    calls = 0
    async with asyncio.timeout(30):
        while len({record["replica"] for record in await gate.calls(tool="word_count")}) < 2:
            for _ in range(5):
                async with httpx2.AsyncClient(timeout=30) as http:
                    assert "result" in payload(await call(http, f"{process.url}/mcp/demo", token))
                calls += 1
    return calls


async def test_each_worker_is_a_replica_and_every_call_is_recorded_once(gate: Gate) -> None:
    process, mia = await gate.replica("crowd", "--workers", "2"), await gate.member()
    calls = await call_until_two_served(gate, process, await mia.bearer(gate.server("demo")))
    assert len(await gate.recorded(calls, tool="word_count")) == calls
    off = await gate.switch("demo", enabled=False)
    assert len(off["receipt"]["replicas"]) == 3, "two workers, and the gateway of `lockgate up`"


async def test_a_worker_that_is_killed_comes_back_while_the_others_serve(gate: Gate) -> None:
    process, mia = await gate.replica("crowd", "--workers", "2"), await gate.member()
    token, http = await mia.bearer(gate.server("demo")), await gate.http()
    victim = workers_of(gate)[0]
    os.kill(victim, signal.SIGKILL)
    assert "result" in payload(await call(http, f"{process.url}/mcp/demo", token))
    await eventually(lambda: victim not in workers_of(gate), 30)


async def test_workers_end_with_the_process_that_started_them(gate: Gate) -> None:
    process = await gate.replica("crowd", "--workers", "2")
    pids = workers_of(gate)
    process.kill()
    await eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), 20)


async def test_with_fewer_workers_the_journals_of_the_others_are_shipped_all_the_same(gate: Gate) -> None:
    crowd = gate.data.with_name("crowd") / WORKERS
    left = Journal(journal_directory(crowd / "worker-7"))
    await left.start()
    (crowd / "lock").touch()
    left.append(AuthEvent(id=new_id(), time=iso(now()), event="left_over", outcome="refused"))
    await left.stop()
    await gate.replica("crowd", "--workers", "1")
    async with asyncio.timeout(10):
        while True:
            events = await gate.admin.api("GET", "/api/activity/auth-events")
            if "left_over" in {event["event"] for event in events["items"]}:
                return
            await asyncio.sleep(0.1)
