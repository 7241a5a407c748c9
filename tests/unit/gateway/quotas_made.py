"""Quotas, and replicas that count, for tests of quotas."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from libs.common.bus import Bus
from libs.common.control.entries import Quota
from libs.common.control.tables import Tables
from libs.common.settings import Settings
from services.gateway.quotas.admission import OverQuota, Quotas
from services.gateway.quotas.ledger import Ledger
from services.gateway.quotas.limits import Use
from tests.conftest import Nats

NOON = 1_800_000_000 // 86_400 * 86_400 + 43_200.0  # of some day, in Unix seconds
ALICE = Use("alice", "staff", "demo", "echo")


def quota(**fields: Any) -> Quota:
    given: dict[str, Any] = {"version": 1, "id": "q", "name": "Everybody's", "of": "user"} | fields
    return Quota(**given)


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
