"""Changes of the vault: what the record tells of them, which is never the key."""

from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from libs.common.control import changes
from libs.common.control import owner as control
from libs.common.control.entries import User
from libs.common.journal import Journal
from services.credentials.domain import Change, Credential, Owner


@dataclass(frozen=True, slots=True)
class Done:
    """A change that was carried out: what is there now, and where it holds."""

    after: Credential | None
    receipt: control.Receipt


class Changes:
    """Carries out writes of the store on behalf of administrators."""

    def __init__(self, owner: control.Owner, journal: Journal) -> None:
        self._changes = changes.Changes(owner, journal)

    async def make(self, admin: User, event: str, owner: Owner, write: Callable[[], Change]) -> Done:
        """Carry out `write` and record it as `event`. Raises what `write` raises."""

        def told(change: Change) -> changes.Told:
            return changes.Told([owner.key], _json(change.before), _json(change.after), change.happened)

        change, receipt = await self._changes.make(admin, event, write, told)
        return Done(change.after, receipt)


def _json(credential: Credential | None) -> str:
    if credential is None:
        return ""
    placement = credential.placement
    told = {
        **({"environment": placement.environment} if placement.environment else {"header": placement.header}),
        "template": placement.template,
        "origin": credential.origin,
        "version": credential.version,
    }
    return msgspec.json.encode(told).decode()
