"""Quotas at a gateway: which calls are counted, what is said to who goes beyond, and what is kept."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any

import pytest

from libs.common.bus import Bus
from libs.common.clock import elapsed
from libs.common.control.entries import Group, Member, Quota, Server
from libs.common.control.tables import Tables
from libs.common.errors import Unavailable
from libs.common.journal import JournalUnavailable
from libs.common.requests import QUOTA_USE, AskQuotaUse, QuotaUse
from libs.common.settings import Settings
from services.gateway.quotas import ledger as ledger_module
from services.gateway.quotas.admission import SHARE, OverQuota, Quotas, Uncounted
from services.gateway.quotas.ledger import STREAMS, Ledger
from services.gateway.quotas.limits import Limits, Use
from tests.conftest import Nats, eventually
from tests.unit.gateway.conftest import DEMO_ACCESS, House, token

NOON = 1_800_000_000 // 86_400 * 86_400 + 43_200.0  # of some day, in Unix seconds


def quota(**fields: Any) -> Quota:
    given: dict[str, Any] = {"version": 1, "id": "q", "name": "Everybody's", "of": "user"} | fields
    return Quota(**given)


META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}


def modern(tool: str) -> dict[str, str]:
    """The headers of a call in MCP 2026-07-28."""
    return {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": tool}


# -- which calls are counted together (pure) ------------------------------------------------------

ALICE = Use("alice", "staff", "demo", "echo")


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


# -- over several replicas and restarts -----------------------------------------------------------


@asynccontextmanager
async def replica(
    nats: Nats, tables: Tables, clock: Any = lambda: NOON, patience: float = 5.0
) -> AsyncIterator[Quotas]:
    """What counts at a gateway replica, over the log as `tables` has it."""
    settings = Settings(nats_url=nats.url)
    bus = Bus(settings, "test")
    ledger = Ledger(bus, 1, clock)
    await bus.start()
    try:
        await ledger.start()
        yield Quotas(ledger, tables, patience)
    finally:
        await ledger.stop()
        await bus.stop()


def tables_with(**fields: Any) -> Tables:
    tables = Tables()
    tables.quotas = {"q": quota(**fields)}
    return tables


async def admitted(quotas: Quotas, calls: int, use: Use = ALICE) -> int:
    """How many of so many calls at once are admitted."""

    async def call() -> bool:
        try:
            await quotas.count([use])
        except OverQuota:
            return False
        return True

    return sum(await asyncio.gather(*(call() for _ in range(calls))))


async def test_a_restarted_replica_knows_what_was_counted(nats: Nats) -> None:
    tables = tables_with(per_day=100)
    async with replica(nats, tables) as before:
        assert await admitted(before, 70) == 70
    async with replica(nats, tables) as after:
        assert await admitted(after, 70) == 30


async def test_one_that_is_killed_loses_no_more_than_it_had_not_told(nats: Nats) -> None:
    tables = tables_with(per_day=100)
    async with replica(nats, tables) as killed:
        assert await admitted(killed, 70) == 70
        told = killed._ledger
        await eventually(lambda: not told._dirty)
        async with replica(nats, tables) as other:
            assert await admitted(other, 70) == 30


async def test_the_count_outlives_a_restart_of_nats(nats: Nats) -> None:
    tables = tables_with(per_day=100)
    async with replica(nats, tables) as quotas:
        assert await admitted(quotas, 70) == 70
    nats.stop()
    nats.start()
    async with replica(nats, tables) as quotas:
        assert await admitted(quotas, 70) == 30


async def test_each_window_begins_at_zero_on_the_clock(nats: Nats) -> None:
    moment = NOON + 59.9
    async with replica(nats, tables_with(per_minute=3), lambda: moment) as quotas:
        assert await admitted(quotas, 5) == 3
        with pytest.raises(OverQuota) as over:
            await quotas.count([ALICE])
        assert over.value.retry_after == 1
        moment = NOON + 60
        assert await admitted(quotas, 5) == 3
        with pytest.raises(OverQuota) as over:
            await quotas.count([ALICE])
        assert over.value.retry_after == 60


async def test_nothing_is_kept_of_windows_that_have_ended(nats: Nats) -> None:
    moment = NOON
    async with replica(nats, tables_with(per_minute=3), lambda: moment) as quotas:
        await admitted(quotas, 2)
        ledger = quotas._ledger
        assert ledger._counters
        moment = NOON + 120
        await eventually(lambda: not ledger._counters and not ledger._dirty)


async def test_counts_that_nobody_uses_are_not_kept_in_memory(
    nats: Nats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_module, "IDLE", 0.05)
    async with replica(nats, tables_with(per_day=100)) as quotas:
        for n in range(50):
            await quotas.count([Use(f"user-{n}", "", "demo", "echo")])
        await eventually(lambda: not quotas._ledger._counters)
        for _ in range(99):
            await quotas.count([Use("user-0", "", "demo", "echo")])
        with pytest.raises(OverQuota):
            await quotas.count([Use("user-0", "", "demo", "echo")])


async def test_the_streams_forget_by_themselves_and_hold_one_message_for_each_count(nats: Nats) -> None:
    async with replica(nats, tables_with(per_day=1000, per_minute=1000)) as quotas:
        for _ in range(30):
            await quotas.count([ALICE])
        js = quotas._ledger._bus.js
        await eventually(lambda: not quotas._ledger._dirty)
        for window, longest in (("minute", 2 * 3600), ("day", 86_400 + 3600)):
            info = await js.stream_info(STREAMS[window])  # type: ignore[index]
            assert info.state.messages == 1
            assert 60 <= (info.config.max_age or 0) <= longest


@pytest.mark.parametrize("limit", [1, 10, 11, 200])
async def test_several_replicas_admit_together_what_the_quota_says(nats: Nats, limit: int) -> None:
    """Of one person, who does not send a tenth of the quota, or ten calls, within three exchanges."""
    tables = tables_with(per_day=limit)
    async with replica(nats, tables) as one, replica(nats, tables) as two, replica(nats, tables) as three:
        total = 0
        while got := sum(
            [
                await admitted(one, 1),
                await admitted(two, 1),
                await admitted(three, 1),
            ]
        ):
            total += got
            if limit > 10:  # then some are admitted by what is known here
                for quotas in (one, two, three):
                    await quotas._ledger._tell_all()
        assert total == limit


async def test_a_flood_over_several_replicas_stays_within_the_stated_bound(nats: Nats) -> None:
    """Beyond the limit, each admits at most a tenth of it, and what it admits between two exchanges."""
    limit = 1500
    tables = tables_with(per_day=limit)
    times: list[list[float]] = [[], [], []]
    asked: list[list[float]] = [[], [], []]

    async def flood(quotas: Quotas, admissions: list[float], exchanges: list[float]) -> None:
        counter = quotas._ledger.counter("day", "q", "user", "alice")
        with contextlib.suppress(OverQuota):
            while True:
                await quotas.count([ALICE])
                admissions.append(elapsed())
                if counter.asked not in exchanges:
                    exchanges.append(counter.asked)
                await asyncio.sleep(0.001)

    async with replica(nats, tables) as one, replica(nats, tables) as two, replica(nats, tables) as three:
        async with asyncio.timeout(60):
            await asyncio.gather(*map(flood, (one, two, three), times, asked))
    gaps = [later - sooner for moments in asked for sooner, later in pairwise(moments)]
    beyond = sum(map(len, times)) - limit
    assert 0 <= beyond <= len(times) * limit / SHARE
    longest = max(ledger_module.EXCHANGE, *gaps)
    assert beyond <= sum(_most_within(admissions, longest) for admissions in times)


def _most_within(times: list[float], seconds: float) -> int:
    """The largest number of `times`, which are in order, that fall within so many seconds."""
    most = first = 0
    for last, moment in enumerate(times):
        while times[first] < moment - seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


# -- faults ---------------------------------------------------------------------------------------


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(ledger_module, "ANSWER_WITHIN", 0.3)
    yield


async def test_without_nats_a_replica_counts_alone_and_tells_it_later(nats: Nats, impatient: None) -> None:
    tables = tables_with(per_day=50)
    async with replica(nats, tables) as quotas:
        assert await admitted(quotas, 30) == 30
        await eventually(lambda: not quotas._ledger._dirty)
        nats.stop()
        assert await admitted(quotas, 10) == 10
        nats.start()
        await eventually(lambda: not quotas._ledger.failing and not quotas._ledger._dirty)
        async with replica(nats, tables) as other:
            assert await admitted(other, 30) == 10


async def test_without_nats_for_longer_than_a_lease_calls_with_a_quota_are_refused(
    nats: Nats, impatient: None
) -> None:
    tables = tables_with(per_day=50, subject="alice")
    async with replica(nats, tables, patience=0.2) as quotas:
        assert await admitted(quotas, 1) == 1
        nats.stop()
        await eventually(lambda: not quotas._ledger._bus.connected)
        await quotas.count([ALICE])
        await eventually(lambda: quotas._ledger.failing > 0.2)
        await asyncio.sleep(ledger_module.EXCHANGE)
        total = next(iter(quotas._ledger._counters.values())).total
        with pytest.raises(Uncounted):
            await quotas.count([ALICE])
        assert next(iter(quotas._ledger._counters.values())).total == total, "what is refused does not count"
        await quotas.count([Use("bob", "", "demo", "echo")])  # has no quota
        nats.start()
        await eventually(lambda: not quotas._ledger.failing)
        await quotas.count([ALICE])


async def test_a_message_whose_acknowledgement_was_lost_counts_once(
    nats: Nats, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = tables_with(per_day=5)
    async with replica(nats, tables) as quotas:
        js = quotas._ledger._bus.js
        publish, lost = js.publish, 0

        async def losing(*args: Any, **options: Any) -> Any:
            nonlocal lost
            ack = await publish(*args, **options)
            if not lost:
                lost += 1
                raise TimeoutError
            return ack

        monkeypatch.setattr(js, "publish", losing)
        await quotas.count([ALICE])  # it is counted, and NATS is told twice
        await eventually(lambda: not quotas._ledger.failing and not quotas._ledger._dirty)
        assert lost
        async with replica(nats, tables) as other:
            assert await admitted(other, 10) == 4


async def test_a_stream_that_somebody_deleted_is_made_anew(nats: Nats) -> None:
    tables = tables_with(per_day=5)
    async with replica(nats, tables) as quotas:
        assert await admitted(quotas, 2) == 2
        await quotas._ledger._bus.js.delete_stream(STREAMS["day"])
        await quotas.count([ALICE])  # by what is known here
        await eventually(lambda: not quotas._ledger.failing and not quotas._ledger._dirty)
        await quotas._ledger._bus.js.stream_info(STREAMS["day"])


async def test_a_call_given_up_while_it_waits_is_not_counted(
    nats: Nats, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with replica(nats, tables_with(per_day=5)) as quotas:
        asked = asyncio.Event()

        async def silent(*_: Any) -> bool:
            asked.set()
            await asyncio.Event().wait()
            return True

        with monkeypatch.context() as patched:
            patched.setattr(quotas._ledger, "settle", silent)
            waiting = asyncio.ensure_future(quotas.count([ALICE]))
            await asked.wait()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        assert await admitted(quotas, 9) == 5


async def test_a_nats_server_without_counters_is_named_in_the_error(
    nats: Nats, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus = Bus(Settings(nats_url=nats.url), "test")
    await bus.start()
    try:
        await bus.js.add_stream(name="OTHER", subjects=["QUOTA.day.>"])  # takes the place of ours
        with pytest.raises(Unavailable, match=r"they need NATS 2\.12"):
            await Ledger(bus, 1).start()
    finally:
        await bus.stop()
