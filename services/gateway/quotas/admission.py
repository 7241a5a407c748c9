"""Counts a call on the way to its admission, or refuses it."""

import asyncio
from collections.abc import Iterable, Sequence
from math import ceil

from libs.common.clock import elapsed
from libs.common.control.tables import Tables
from services.gateway.quotas.counter import Counter
from services.gateway.quotas.ledger import Ledger
from services.gateway.quotas.limits import Limit, Limits, Use

SHARE = 10  # a replica admits at most one part in so many of a limit before it tells NATS
LAST = 10  # that part of a limit, and at least so many calls, are the last: told before they are admitted


class NotCounted(Exception):
    """A call may not be made for its quotas. `reason` is that of the refusal, `key` names the quota in the
    control log, `retry_after` are the seconds after which the call may be made, where they are known.

    ├── OverQuota   the calls of a window are used up
    └── Uncounted   for too long NATS has not answered, so that nobody knows what is used
    """

    reason = ""

    def __init__(self, limit: Limit, detail: str, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.key, self.detail, self.retry_after = limit.key, detail, retry_after


class OverQuota(NotCounted):
    reason = "quota_exceeded"

    def __init__(self, limit: Limit, retry_after: int) -> None:
        used_up = f"the quota {limit.quota.name!r} of {limit.calls} calls a {limit.window} is used up"
        super().__init__(limit, f"{used_up}; it begins anew in {retry_after} s", retry_after)


class Uncounted(NotCounted):
    reason = "quota_unavailable"

    def __init__(self, limit: Limit) -> None:
        super().__init__(limit, "its quotas cannot be counted now")


class Counted:
    """A call that is counted. `give_back` when it is not admitted after all."""

    def __init__(self, ledger: Ledger, counters: Sequence[Counter]) -> None:
        self._ledger, self._counters = ledger, counters
        for counter in counters:
            ledger.count(counter, 1)

    def give_back(self) -> None:
        for counter in self._counters:
            self._ledger.count(counter, -1)


class Quotas:
    """The quotas of the control log, over the counts of all replicas."""

    def __init__(self, ledger: Ledger, tables: Tables, patience: float) -> None:
        """`patience`: seconds without an answer of NATS after which calls with a quota are refused."""
        self._ledger, self._tables, self._patience = ledger, tables, patience
        self._made_of, self._limits = tables.quotas, Limits(tables.quotas)

    @property
    def limits(self) -> Limits:
        """Made once for each state of the log."""
        if self._made_of is not self._tables.quotas:
            self._made_of = self._tables.quotas
            self._limits = Limits(self._made_of)
        return self._limits

    def use(self, user: str, group: str, server: str, tool: str) -> Use:
        """A call, as the control log knows its tool."""
        entry = self._tables.servers.get(server)
        return Use(user, group, server, tool, entry is not None and tool in entry.tools)

    async def count(self, uses: Iterable[Use]) -> Counted:
        """Count calls against all their limits. Raises `NotCounted`, and has counted nothing then.

        They are counted first and looked at then. They wait for NATS where this replica has not asked lately,
        or has not told much, or a limit is nearly reached.
        """
        if not self._tables.quotas:
            return Counted(self._ledger, [])
        held = [
            (limit, self._ledger.counter(limit.window, limit.quota.id, limit.quota.of, who))
            for use in uses
            for limit, who in self.limits.on(use)
        ]
        self._refuse_at_once(held)
        counted = Counted(self._ledger, [counter for _, counter in held])
        try:
            await self._settle(held)
            self._look(held)
        except BaseException:
            counted.give_back()
            raise
        return counted

    def _refuse_at_once(self, held: list[tuple[Limit, Counter]]) -> None:
        """What is known to be used up need not be counted first."""
        for limit, counter in held:
            if limit.calls <= 0 or (self._ledger.is_fresh(counter) and counter.total >= limit.calls):
                raise self._over(limit, counter)

    async def _settle(self, held: list[tuple[Limit, Counter]]) -> None:
        """Ask NATS where what is known here does not suffice."""
        since = elapsed()
        asked = [(limit, counter) for limit, counter in held if not self._suffices(limit, counter)]
        if not asked:
            return
        answers = await asyncio.gather(*(self._ledger.settle(counter, since) for _, counter in asked))
        if not all(answers) and self._ledger.failing > self._patience:
            raise Uncounted(asked[answers.index(False)][0])

    def _suffices(self, limit: Limit, counter: Counter) -> bool:
        share = limit.calls // SHARE
        far_off = counter.total <= limit.calls - max(share, LAST)
        return far_off and counter.untold <= share and self._ledger.is_fresh(counter)

    def _look(self, held: list[tuple[Limit, Counter]]) -> None:
        for limit, counter in held:
            if counter.total > limit.calls:
                raise self._over(limit, counter)

    def _over(self, limit: Limit, counter: Counter) -> OverQuota:
        return OverQuota(limit, max(1, ceil(counter.ends - self._ledger.clock())))
