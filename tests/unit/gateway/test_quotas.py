"""Quotas at a gateway: which calls are counted, and what is said to who goes beyond."""

import asyncio
import time
from typing import Any

import pytest

from libs.common.control.entries import Group, Member, Server
from libs.common.journal import JournalUnavailable
from libs.common.requests import QUOTA_USE, AskQuotaUse, QuotaUse
from services.gateway.quotas.limits import Limits, Use
from tests.conftest import eventually
from tests.unit.gateway.conftest import DEMO_ACCESS, House, token
from tests.unit.gateway.quotas_made import ALICE, quota

META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}


def modern(tool: str) -> dict[str, str]:
    """The headers of a call in MCP 2026-07-28."""
    return {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": tool}


# -- which calls are counted together (pure) ------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "counted_with"),
    [
        ({"of": "user"}, "alice"),
        ({"of": "user", "subject": "alice"}, "alice"),
        ({"of": "user", "subject": "bob"}, None),
        ({"of": "group", "subject": "staff"}, "staff"),
        ({"of": "group", "subject": "default"}, None),
        ({"of": "server"}, "demo"),
        ({"of": "tool"}, "demo/echo"),
        ({"of": "tool", "subject": "demo/echo"}, "demo/echo"),
        ({"of": "tool", "subject": "other/echo"}, None),
        ({"of": "user", "servers": ["demo"]}, "alice"),
        ({"of": "user", "servers": ["other"]}, None),
    ],
)
def test_a_quota_counts_the_calls_of_those_it_is_for(
    fields: dict[str, Any], counted_with: str | None
) -> None:
    found = [who for _, who in Limits({"q": quota(per_minute=1, **fields)}).on(ALICE)]
    assert found == ([counted_with] if counted_with else [])


def test_both_windows_of_a_quota_count_and_so_do_all_quotas_that_apply() -> None:
    quotas = {
        "a": quota(id="a", per_minute=1, per_day=2),
        "b": quota(id="b", of="server", per_day=3),
        "c": quota(id="c", of="group"),
    }
    found = {(limit.key, limit.window, limit.calls) for limit, _ in Limits(quotas).on(ALICE)}
    assert found == {("quota.a", "minute", 1), ("quota.a", "day", 2), ("quota.b", "day", 3)}


def test_who_is_in_no_group_counts_for_none() -> None:
    assert not list(Limits({"q": quota(of="group", per_day=1)}).on(Use("alice", "", "demo", "echo")))


# -- at a gateway ---------------------------------------------------------------------------------


async def late_in_no_minute() -> None:
    """Wait for the next minute where this one is about to end, so that a test's calls fall into one."""
    while time.time() % 60 > 50:
        await asyncio.sleep(0.5)


async def test_a_call_beyond_the_quota_is_refused_until_the_window_ends(house: House) -> None:
    await late_in_no_minute()
    revision = await house.put(quota(name="Two a minute", per_minute=2))
    assert [(await house.call()).status_code for _ in range(2)] == [200, 200]
    left = 60 - time.time() % 60
    refused = await house.call()
    assert refused.status_code == 429
    wait = int(refused.headers["retry-after"])
    assert 0 < wait <= left + 1, "seconds to the end of this minute"
    error = refused.json()["error"]
    assert error["data"].pop("revision") >= revision
    assert error["data"] == {
        "reason": "quota_exceeded",
        "decidedBy": "lockgate",
        "rule": "quota.q",
        "retryAfter": wait,
    }
    assert f"'Two a minute' of 2 calls a minute is used up; it begins anew in {wait} s" in error["message"]
    assert len(house.upstream.seen) == 2
    record = await house.record(3)
    assert (record["status"], record["reason"], record["rule"]) == ("denied", "quota_exceeded", "quota.q")


async def test_others_have_their_own_count(house: House) -> None:
    await house.put(quota(per_day=1))
    assert (await house.call()).status_code == 200
    assert (await house.call()).status_code == 429
    assert (await house.call(bearer=token("bob"))).status_code == 200


async def test_a_groups_members_share_its_quota(house: House) -> None:
    staff = Group(version=1, id="staff", name="Staff", servers={"demo": DEMO_ACCESS})
    await house.put(
        staff, Member(version=1, user="bob", group="staff"), Member(version=1, user="alice", group="staff")
    )
    await house.put(quota(of="group", subject="staff", per_day=1))
    assert (await house.call()).status_code == 200
    assert (await house.call(bearer=token("bob"))).status_code == 429


async def test_only_calls_of_tools_that_are_admitted_count(house: House) -> None:
    await house.put(quota(per_day=1))
    for method in ("tools/list", "prompts/list", "ping", "notifications/initialized"):
        assert (await house.post(house.message(method))).status_code == 200
    assert (await house.call("forbidden")).json()["error"]["data"]["reason"] == "tool_denied"
    stale = await house.call(server="keyed", bearer=token(audience="https://gate.example/mcp/keyed"))
    assert stale.json()["error"]["data"]["reason"] == "credential_missing"
    assert (await house.call()).status_code == 200
    assert (await house.call()).status_code == 429
    assert (await house.post(house.message("tools/list"))).status_code == 200, "lists are no calls"


async def test_a_call_that_could_not_be_recorded_is_not_counted(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.put(quota(per_day=1))

    async def full(_: object) -> None:
        raise JournalUnavailable("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(house.gateway.journal, "admit", full)
        assert (await house.call()).status_code == 503
    assert (await house.call()).status_code == 200
    assert (await house.call()).status_code == 429


async def test_a_call_over_the_quota_of_a_server_does_not_use_up_that_of_the_caller(house: House) -> None:
    await house.put(quota(id="s", of="server", subject="demo", per_day=1), quota(id="u", per_day=2))
    assert [(await house.call()).status_code for _ in range(3)] == [200, 429, 429]
    await house.put(quota(version=2, id="s", of="server", subject="other", per_day=1))
    assert [(await house.call()).status_code for _ in range(2)] == [200, 429]


async def test_a_changed_limit_counts_from_the_next_call_and_forgets_none(house: House) -> None:
    await house.put(quota(per_day=1))
    assert [(await house.call()).status_code for _ in range(2)] == [200, 429]
    await house.put(quota(version=2, per_day=3))
    assert [(await house.call()).status_code for _ in range(3)] == [200, 200, 429]


async def test_an_unreadable_quota_allows_no_call(house: House) -> None:
    ack = await house.bus.js.publish("$KV.CONTROL.quota.q", b'{"version": "?"}')
    await eventually(lambda: house.gateway.follower.applied >= ack.seq)
    assert (await house.call()).json()["error"]["data"]["reason"] == "quota_exceeded"


async def test_in_the_bridged_lane_a_call_beyond_the_quota_is_refused_too(house: House) -> None:
    bridged = Server(version=2, slug="demo", name="Demo", url=house.upstream.url, bridge="always")
    await house.put(bridged, quota(per_day=1))
    body = house.message("tools/call", {"name": "echo", "arguments": {}, "_meta": META})
    assert "result" in (await house.post(body, **modern("echo"))).json()
    refused = await house.post(body, **modern("echo"))
    assert refused.json()["error"]["data"]["reason"] == "quota_exceeded"
    assert 0 < refused.json()["error"]["data"]["retryAfter"] <= 86_400
    assert len(house.upstream.seen) == 1


async def test_a_call_through_the_address_of_the_whole_gateway_counts_once(house: House) -> None:
    await house.put(quota(per_day=2))
    headers = {
        "authorization": f"Bearer {token(audience='https://gate.example/mcp')}",
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        **modern("demo__echo"),
    }
    body = house.message("tools/call", {"name": "demo__echo", "arguments": {}, "_meta": META})
    answers = [
        (await house.client.post(f"{house.url}/mcp", content=body, headers=headers)).json() for _ in range(3)
    ]
    assert ["result" in answer for answer in answers] == [True, True, False]
    assert answers[2]["error"]["data"]["reason"] == "quota_exceeded"
    assert len(house.upstream.seen) == 2


async def test_what_is_used_can_be_asked_over_the_bus(house: House) -> None:
    await house.put(quota(per_minute=1000, per_day=5))
    await house.call()
    asked = AskQuotaUse(user="alice", group="default", server="demo", tool="echo")
    use = await house.bus.request(QUOTA_USE, asked, QuotaUse)
    found = {limit.window: limit for limit in use.limits}
    day = found["day"]
    assert (day.quota, day.limit, day.used) == ("q", 5, 1)
    assert day.resets.endswith("T00:00:00.000000Z")
    assert found["minute"].limit == 1000 and found["minute"].resets.endswith(":00.000000Z")
    other = AskQuotaUse(user="bob", group="default", server="demo", tool="echo")
    assert all(not limit.used for limit in (await house.bus.request(QUOTA_USE, other, QuotaUse)).limits)
