"""Tells over the bus how far the quotas of a call are used (libs.common.requests.QUOTA_USE)."""

from datetime import UTC, datetime

from libs.common.bus import Bus
from libs.common.clock import elapsed, iso
from libs.common.errors import Unavailable
from libs.common.requests import QUOTA_USE, AskQuotaUse, QuotaStanding, QuotaUse
from services.gateway.quotas.admission import Quotas
from services.gateway.quotas.counter import Counter
from services.gateway.quotas.ledger import Ledger


class Reporting:
    """Answers for all replicas: what counts is what they have told NATS."""

    def __init__(self, bus: Bus, ledger: Ledger, quotas: Quotas) -> None:
        self._bus, self._ledger, self._quotas = bus, ledger, quotas

    async def start(self) -> None:
        await self._bus.serve(QUOTA_USE, AskQuotaUse, self._tell, at_once=8)

    async def _tell(self, query: AskQuotaUse) -> QuotaUse:
        use = self._quotas.use(query.user, query.group, query.server, query.tool)
        standings = []
        for limit, who in self._quotas.limits.on(use):
            counter = self._ledger.counter(limit.window, limit.quota.id, limit.quota.of, who)
            standings.append(
                QuotaStanding(
                    quota=limit.quota.id,
                    window=limit.window,
                    limit=limit.calls,
                    used=await self._sum(counter),
                    resets=iso(datetime.fromtimestamp(counter.ends, UTC)),
                )
            )
        return QuotaUse(limits=standings)

    async def _sum(self, counter: Counter) -> int:
        if not await self._ledger.settle(counter, elapsed()):
            raise Unavailable("the counts of quotas cannot be read now")
        return counter.total
