"""Quotas over several replicas and restarts: what they count together, and what is kept of it."""

import asyncio
import contextlib
from itertools import pairwise

import pytest

from libs.common.clock import elapsed
from services.gateway.quotas import ledger as ledger_module
from services.gateway.quotas.admission import SHARE, OverQuota, Quotas
from services.gateway.quotas.ledger import STREAMS
from services.gateway.quotas.limits import Use
from tests.conftest import Nats, eventually
from tests.unit.gateway.quotas_made import ALICE, NOON, admitted, replica, tables_with


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
