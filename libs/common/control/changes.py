"""How every change of an administrator goes: commit, publish to the control log, record who did it.

What is committed is recorded, whatever becomes of the request that asked for it: the change is carried out in
a task of its own, which a client that goes away, or a server that stops waiting, does not cancel.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from libs.common.clock import iso, now
from libs.common.control.entries import User
from libs.common.control.owner import Owner, Receipt
from libs.common.ids import new_id
from libs.common.journal import Journal
from libs.common.records import AdminEvent

T = TypeVar("T")

_carried_out: set["asyncio.Task[Any]"] = set()  # the loop itself keeps only weak references


@dataclass(frozen=True, slots=True)
class Told:
    """What the record says of a change: its keys in the log, in the order in which they are written, and the
    states before and after, as JSON."""

    keys: Sequence[str]
    before: str
    after: str
    happened: bool = True  # whether anything is different now
    subject: str = ""  # what was changed, where that is not the first of the keys
    event: str = ""  # where it is another than that of the whole change


class Changes:
    """Carries out writes of a store on behalf of administrators."""

    def __init__(self, owner: Owner, journal: Journal) -> None:
        self._owner, self._journal = owner, journal

    async def make(
        self, admin: User, event: str, write: Callable[[], T], tell: Callable[[T], Told]
    ) -> tuple[T, Receipt]:
        """Run `write` in a thread, publish what `tell` says of its result, and record it as `event`.

        Raises what `write` raises.
        """
        return await self.make_all(admin, event, write, lambda change: [tell(change)])

    async def make_all(
        self, admin: User, event: str, write: Callable[[], T], tell: Callable[[T], Sequence[Told]]
    ) -> tuple[T, Receipt]:
        """The same for a write that changes several things: each is recorded, the receipt is for all."""
        task = asyncio.create_task(self._make(admin, event, write, tell), name=event)
        _carried_out.add(task)
        task.add_done_callback(_carried_out.discard)
        return await asyncio.shield(task)

    async def _make(
        self, admin: User, event: str, write: Callable[[], T], tell: Callable[[T], Sequence[Told]]
    ) -> tuple[T, Receipt]:
        change = await asyncio.to_thread(write)
        parts = tell(change)
        receipt = Receipt(0, False)
        try:
            receipt = await self._owner.publish(*[key for told in parts for key in told.keys])
        finally:  # it was committed
            for told in parts:
                if told.happened:
                    self._journal.append(_record(admin, told.event or event, told, receipt))
        return change, receipt


def _record(admin: User, event: str, told: Told, receipt: Receipt) -> AdminEvent:
    return AdminEvent(
        id=new_id(),
        time=iso(now()),
        event=event,
        actor=admin.id,
        email=admin.email,
        subject=told.subject or told.keys[0],
        before=told.before,
        after=told.after,
        revision=receipt.revision,
    )
