"""Quotas while NATS is away, slow or changed: what is counted all the same, and what is refused."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from libs.common.bus import Bus
from libs.common.errors import Unavailable
from libs.common.settings import Settings
from services.gateway.quotas import ledger as ledger_module
from services.gateway.quotas.admission import Uncounted
from services.gateway.quotas.ledger import STREAMS, Ledger
from services.gateway.quotas.limits import Use
from tests.conftest import Nats, eventually
from tests.unit.gateway.quotas_made import ALICE, admitted, replica, tables_with


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
