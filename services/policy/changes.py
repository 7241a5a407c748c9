"""How every change goes: commit, publish to the control log, record who did it, and say where it holds."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

from libs.common.clock import iso, now
from libs.common.control.entries import AnyEntry, User
from libs.common.control.owner import Owner, Receipt
from libs.common.ids import new_id
from libs.common.journal import Journal
from libs.common.records import AdminEvent
from services.policy.domain import Change, Group, Organization, Server

T = TypeVar("T", Server, Group, Organization)


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """A change that was carried out: what is there now, and where it holds."""

    after: T | None
    receipt: Receipt


class Changes:
    """Carries out writes of the store on behalf of administrators."""

    def __init__(self, owner: Owner, journal: Journal) -> None:
        self._owner, self._journal = owner, journal

    async def make(self, admin: User, event: str, write: Callable[[], Change[T]]) -> Done[T]:
        """Run `write` in a thread, then publish and record it as `event`. Raises what `write` raises."""
        change = await asyncio.to_thread(write)
        revision = 0
        try:
            receipt = await self._owner.publish(*change.keys)
            revision = receipt.revision
        finally:  # committed is committed: it is recorded even if waiting for the receipt was cut short
            if change.happened:
                self._record(admin, event, change, revision)
        return Done(change.after, receipt)

    def _record(self, admin: User, event: str, change: Change[T], revision: int) -> None:
        record = AdminEvent(
            id=new_id(),
            time=iso(now()),
            event=event,
            actor=admin.id,
            email=admin.email,
            subject=change.keys[0],
            before=_json(change.before),
            after=_json(change.after),
            revision=revision,
        )
        self._journal.append(record)


def _json(state: Server | Group | Organization | None) -> str:
    entry: AnyEntry | None = state.entry() if state else None
    return msgspec.json.encode(entry).decode() if entry else ""
