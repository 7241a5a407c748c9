"""Changes of policy: what the record tells of them, and what the API answers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

from libs.common.control import changes
from libs.common.control.entries import Member, User
from libs.common.control.owner import Owner, Receipt
from libs.common.journal import Journal
from services.policy.domain import Change, Group, Organization, Server

T = TypeVar("T", Server, Group, Organization, Member)


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """A change that was carried out: what is there now, and where it holds."""

    after: T | None
    receipt: Receipt


class Changes:
    """Carries out writes of the store on behalf of administrators."""

    def __init__(self, owner: Owner, journal: Journal) -> None:
        self._changes = changes.Changes(owner, journal)

    async def make(self, admin: User, event: str, write: Callable[[], Change[T]]) -> Done[T]:
        """Carry out `write` and record it as `event`. Raises what `write` raises."""
        change, receipt = await self._changes.make(admin, event, write, _told)
        return Done(change.after, receipt)


def _told(change: Change[T]) -> changes.Told:
    return changes.Told(change.keys, _json(change.before), _json(change.after), change.happened)


def _json(state: Server | Group | Organization | Member | None) -> str:
    """The entry in the control log; of a server also what it offers and the log does not say."""
    if state is None:
        return ""
    entry = msgspec.to_builtins(state if isinstance(state, Member) else state.entry())
    if isinstance(state, Server):
        entry |= {kind: [feature.name for feature in offered] for kind, offered in state.features}
    return msgspec.json.encode(entry).decode()
