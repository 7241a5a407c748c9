"""Saying what became of a credential by itself: to the control log, and in the record. Never the secret."""

import asyncio
import contextlib

import msgspec
import structlog

from libs.common.clock import iso, now
from libs.common.control.follower import Follower
from libs.common.control.owner import Owner
from libs.common.errors import Unavailable
from libs.common.ids import new_id
from libs.common.journal import Journal
from libs.common.lifecycle import Tasks
from libs.common.records import AdminEvent
from services.credentials.domain import Account, Change

log = structlog.get_logger(__name__)

KNOWN_WITHIN = 3.0  # seconds until the control log has what the database has


class Telling:
    """A part of the service (libs.common.lifecycle)."""

    def __init__(self, owner: Owner, follower: Follower, journal: Journal) -> None:
        self._owner, self._follower, self._journal = owner, follower, journal
        self._publishing = Tasks()

    async def start(self) -> None:
        """There is nothing to start."""

    async def stop(self) -> None:
        """A log that is not written yet will be at the next start (`Owner.reconcile`)."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(KNOWN_WITHIN):
                await self._publishing.join()
        await self._publishing.cancel()

    async def tell(self, event: str, change: Change, actor: str, detail: str = "") -> None:
        """Record `change` and publish it. Returns when the control log has it, or will soon."""
        key = change.owner.key
        self._journal.append(
            AdminEvent(
                id=new_id(),
                time=iso(now()),
                event=event,
                actor=actor,
                subject=key,
                before=_json(change.before),
                after=_json(change.after),
                detail=detail,
            )
        )
        if change.after:
            await self.known(change.after)

    async def known(self, account: Account) -> None:
        """Return when the control log has this version of the account, if it is the one that is used.
        Replicas that do not answer are not waited for: nothing is forbidden by a newer token."""
        if not account.chosen or self._has(account):
            return
        self._publishing.spawn(self._publish(account.owner.key))
        with contextlib.suppress(Unavailable):
            await self._follower.wait_for(lambda: self._has(account), KNOWN_WITHIN)

    def _has(self, account: Account) -> bool:
        owner = account.owner
        entry = self._follower.tables.credentials.get(f"{owner.slug}.{owner.user}")
        return entry is not None and entry.version >= account.version

    async def _publish(self, key: str) -> None:
        await self._owner.publish(key)


def _json(account: Account | None) -> str:
    if account is None:
        return ""
    told = {"account": account.id, "version": account.version, "state": account.state}
    told |= {"label": account.label, "expires_at": account.expires_at}
    return msgspec.json.encode(told).decode()
