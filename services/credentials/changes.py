"""How every change of the vault goes: commit, publish to the control log, record who did it."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from libs.common.clock import iso, now
from libs.common.control import owner as control
from libs.common.control.entries import User
from libs.common.ids import new_id
from libs.common.journal import Journal
from libs.common.records import AdminEvent
from services.credentials.domain import Change, Credential, Owner


@dataclass(frozen=True, slots=True)
class Done:
    """A change that was carried out: what is there now, and where it holds."""

    after: Credential | None
    receipt: control.Receipt


class Changes:
    """Carries out writes of the store on behalf of administrators."""

    def __init__(self, owner: control.Owner, journal: Journal) -> None:
        self._owner, self._journal = owner, journal

    async def make(self, admin: User, event: str, owner: Owner, write: Callable[[], Change]) -> Done:
        """Run `write` in a thread, then publish and record it as `event`. Raises what `write` raises."""
        change = await asyncio.to_thread(write)
        revision = 0
        try:
            receipt = await self._owner.publish(owner.key)
            revision = receipt.revision
        finally:  # committed is committed: it is recorded even if waiting for the receipt was cut short
            if change.happened:
                self._record(admin, event, owner, change, revision)
        return Done(change.after, receipt)

    def _record(self, admin: User, event: str, owner: Owner, change: Change, revision: int) -> None:
        record = AdminEvent(
            id=new_id(),
            time=iso(now()),
            event=event,
            actor=admin.id,
            email=admin.email,
            subject=owner.key,
            before=_json(change.before),
            after=_json(change.after),
            revision=revision,
        )
        self._journal.append(record)


def _json(credential: Credential | None) -> str:
    """What may be told about it: never the key."""
    if credential is None:
        return ""
    placement = credential.placement
    told = {
        "header": placement.header,
        "template": placement.template,
        "origin": credential.origin,
        "version": credential.version,
    }
    return msgspec.json.encode(told).decode()
