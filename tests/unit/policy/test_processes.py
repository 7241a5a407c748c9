"""What runs of a stdio server, asked from all gateways. The gateways are somebody on the bus who answers."""

import html
import re
import time

from libs.common.control.entries import Replica
from libs.common.requests import LIST_PROCESSES, ListProcesses, ProcessList, ProcessReport
from tests.unit.policy.conftest import Policy

STDIO = {"transport": "stdio", "url": "", "command": ["npx", "tools"]}
RUNNING = ProcessReport(
    server="tools", state="running", user="ada", pid=7, started="2026-01-02T03:04:05Z", errors=["<ready>"]
)
FAILED = ProcessReport(
    server="tools", state="backing_off", ending="exited with status 1", retry_in=3.2, errors=["a", "b"]
)


async def _gateway(policy: Policy, *answers: ProcessList) -> list[str]:
    """Gateways that answer so. The servers that they were asked about are in the list that it returns."""
    asked: list[str] = []
    for answer in answers:

        async def tell(query: ListProcesses, answer: ProcessList = answer) -> ProcessList:
            asked.append(query.slug)
            return answer

        await policy.control.bus.serve(LIST_PROCESSES, ListProcesses, tell, everyone=True)
        replica = Replica(id=answer.replica, revision=10**9, applied_at="2026-01-02T03:04:05Z", lease=1.0)
        await policy.control.put(replica)
    await policy.control.bus.client.flush()
    follower = policy.app.state.follower
    await follower.wait_for(lambda: len(follower.tables.replicas) == len(answers), timeout=5)
    return asked


async def _page(policy: Policy) -> str:
    text = (await policy.browser.get("/servers/tools")).text
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", text)))


async def test_the_processes_of_all_gateways_are_shown_with_their_standard_error(policy: Policy) -> None:
    await _gateway(
        policy,
        ProcessList(replica="r1", enabled=True, processes=[RUNNING]),
        ProcessList(replica="r2", enabled=True, processes=[FAILED]),
    )
    await policy.add("tools", **STDIO)
    text = await _page(policy)
    assert "Running ada@example.com at gateway r1 , started 2026-01-02 03:04:05 UTC" in text
    assert "Failed tried again in 4 s for everybody at gateway r2 , exited with status 1" in text
    assert "<ready>" in text
    assert "Standard error, last 2 lines" in text


async def test_a_script_gets_the_same(policy: Policy) -> None:
    asked = await _gateway(policy, ProcessList(replica="r1", enabled=True, processes=[RUNNING]))
    await policy.add("tools", **STDIO)
    items = (await policy.api.get("/api/policy/servers/tools/processes")).json()["items"]
    assert [(item["replica"], item["enabled"]) for item in items] == [("r1", True)]
    (process,) = items[0]["processes"]
    assert (process["state"], process["user"], process["errors"]) == ("running", "ada", ["<ready>"])
    assert asked == ["tools"]


async def test_a_gateway_that_runs_no_commands_is_pointed_out(policy: Policy) -> None:
    await _gateway(policy, ProcessList(replica="r1", enabled=False), ProcessList(replica="r2", enabled=True))
    await policy.add("tools", **STDIO)
    text = await _page(policy)
    assert "1 of 2 gateways run no commands" in text
    assert "LOCKGATE_GATEWAY_STDIO=on" in text
    assert "None runs now" in text


async def test_without_a_gateway_the_page_says_so_and_does_not_wait(policy: Policy) -> None:
    await policy.add("tools", **STDIO)
    begun = time.monotonic()
    assert "No gateway answers" in await _page(policy)
    assert time.monotonic() - begun < 2


async def test_servers_that_are_no_commands_have_no_processes(policy: Policy) -> None:
    asked = await _gateway(policy, ProcessList(replica="r1", enabled=True))
    await policy.add("wiki")
    assert "Standard error" not in (await policy.browser.get("/servers/wiki")).text
    assert asked == []
    assert (await policy.api.get("/api/policy/servers/nobody/processes")).status_code == 404


async def test_of_a_server_that_is_off_the_page_says_that_reading_runs_its_command(policy: Policy) -> None:
    await _gateway(policy, ProcessList(replica="r1", enabled=True))
    await policy.add("tools", **STDIO)
    await policy.api.put("/api/policy/servers/tools/switch", json={"enabled": False})
    text = await _page(policy)
    assert "None runs, because the server is off." in text
    assert "reading it runs its command for just that long" in text
