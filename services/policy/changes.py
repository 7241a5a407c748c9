"""Changes of policy: what the record tells of them, and what the API answers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import msgspec

from libs.common.control import changes
from libs.common.control.entries import User
from libs.common.control.owner import Owner, Receipt
from libs.common.journal import Journal
from services.policy.domain import Change, Recorded

T = TypeVar("T", bound=Recorded)

POLICY = User(version=0, id="policy", email="")  # who the record names where nobody pressed a button


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

    async def make_all(
        self, admin: User, event: str, write: Callable[[], Sequence[Change[T]]]
    ) -> tuple[Sequence[Change[T]], Receipt]:
        """Carry out a `write` that changes several things, each recorded as `event`."""
        return await self._changes.make_all(
            admin, event, write, lambda found: [_told(each) for each in found]
        )


def _told(change: Change[T]) -> changes.Told:
    return changes.Told(
        change.keys, _json(change.before), _json(change.after), change.happened, change.subject
    )


def _json(state: Recorded | None) -> str:
    return msgspec.json.encode(state.record()).decode() if state else ""
