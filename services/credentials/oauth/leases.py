"""Who refreshes what, and when: one replica at a time per account, by a lease in the row that they share.
Synchronous: call it from a thread.

A lease is taken and renewed by one conditional UPDATE, so that of two replicas one succeeds. It ends by
itself soon after its holder was killed. Replicas' clocks may differ by a second or two; `LEASE` is far
longer. Should two be at it all the same (a process that was suspended), `Accounts.renew` lets the first
answer stand.
"""

import random
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import ColumnElement, CursorResult, and_, or_, update
from sqlmodel import Session, col, func, select

from services.credentials.oauth.domain import Connection
from services.credentials.store.database import Database
from services.credentials.tables import AccountRow

LEASE = 8.0  # seconds
RENEW_EVERY = 2.0
# The part of its lifetime after which a token is renewed: not all of one hour's in the same second.
EARLIEST, LATEST = 0.70, 0.90


def refresh_at(connection: Connection, chance: Callable[[], float] = random.random) -> float:
    """When to renew it, ahead of its expiry and at a moment of its own; 0 for never."""
    if not connection.refresh_token or not connection.expires_at:
        return 0.0
    lifetime = connection.expires_at - connection.obtained_at
    return connection.obtained_at + lifetime * (EARLIEST + (LATEST - EARLIEST) * chance())


class Leases:
    """The leases of one replica, which calls itself `holder`."""

    def __init__(self, database: Database, holder: str, clock: Callable[[], float] = time.time) -> None:
        self._database, self._holder, self._clock = database, holder, clock

    def take(self, account_id: str) -> bool:
        """Whether this replica may refresh the account now."""
        now = self._clock()
        free = and_(_is(account_id), col(AccountRow.refresh_until) <= now)
        return self._update(free, refresh_holder=self._holder, refresh_until=now + LEASE)

    def renew(self, account_id: str) -> bool:
        """Hold it longer. Returns whether it was still ours."""
        return self._update(self._ours(account_id), refresh_until=self._clock() + LEASE)

    def release(self, account_id: str) -> None:
        self._update(self._ours(account_id), refresh_holder="", refresh_until=0.0)

    def postpone(self, account_id: str, seconds: float) -> None:
        """Try again then, if it is one that is refreshed ahead of its expiry, or to be revoked."""
        planned = or_(col(AccountRow.refresh_at) > 0, col(AccountRow.state) == "removed")
        scheduled = and_(self._ours(account_id), planned)
        self._update(scheduled, refresh_at=self._clock() + seconds)

    def held(self, account_id: str) -> bool:
        """Whether some replica refreshes the account now."""
        with Session(self._database.engine) as session:
            query = select(AccountRow.refresh_until).where(_is(account_id))
            return (session.exec(query).first() or 0.0) > self._clock()

    def due(self, limit: int) -> list[str]:
        """Accounts to refresh now that nobody is at, the most urgent first."""
        now = self._clock()
        query = select(AccountRow.id).where(_scheduled(), col(AccountRow.refresh_at) <= now)
        query = query.where(col(AccountRow.refresh_until) <= now).order_by(col(AccountRow.refresh_at))
        with Session(self._database.engine) as session:
            return list(session.exec(query.limit(limit)))

    def next_due(self) -> float | None:
        """Seconds until the next one is due."""
        with Session(self._database.engine) as session:
            soonest = session.exec(select(func.min(AccountRow.refresh_at)).where(_scheduled())).one()
        return None if soonest is None else max(0.0, soonest - self._clock())

    def _ours(self, account_id: str) -> ColumnElement[bool]:
        return and_(_is(account_id), col(AccountRow.refresh_holder) == self._holder)

    def _update(self, which: ColumnElement[bool], **values: Any) -> bool:
        with Session(self._database.engine) as session, session.begin():
            result = session.execute(update(AccountRow).where(which).values(**values))
            assert isinstance(result, CursorResult)
            return bool(result.rowcount)


def _is(account_id: str) -> ColumnElement[bool]:
    return col(AccountRow.id) == account_id


def _scheduled() -> ColumnElement[bool]:
    return and_(col(AccountRow.refresh_at) > 0, col(AccountRow.state) == "connected")
