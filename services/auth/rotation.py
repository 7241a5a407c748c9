"""Replacing the signing keys on schedule, without a moment in which a good token is refused.

    made        written to the control log and the JWKS
    published   every gateway has confirmed that; from then on it waits
    signs       `domain.KEY_AHEAD` later, when the one before has lived for its lifetime
    retired     `domain.KEY_KEPT` after its successor began to sign; its private part is forgotten

Each step follows from what the database says, under its constraints, so that any number of replicas may take
it, at once or never, and the next one goes on from there.
"""

import asyncio
from dataclasses import dataclass
from itertools import pairwise

from libs.common.control.owner import Owner
from services.auth.domain import KEY_AHEAD, KEY_KEPT, SigningKey
from services.auth.keys import SigningKeys
from services.auth.store import Store
from services.auth.store.database import unix_now

KEYS = "keys"  # in the control log


@dataclass(frozen=True, slots=True)
class Rotation:
    """`lifetime`: seconds for which a key signs."""

    store: Store
    keys: SigningKeys
    owner: Owner
    lifetime: int

    async def proceed(self) -> None:
        """Take the steps that are due."""
        changed = await asyncio.to_thread(self._change)
        live = await asyncio.to_thread(self.store.keys.live)
        unpublished = [key.kid for key in live if key.published_at is None]
        if changed or unpublished:
            receipt = await self.owner.publish(KEYS)
            if receipt.complete:
                await asyncio.to_thread(self.store.keys.published, unpublished)
        await asyncio.to_thread(self.keys.load)

    def _change(self) -> bool:
        """Make the next key, retire the ones that are over. Whether anything is different."""
        now, live = unix_now(), self.store.keys.live()
        retired = over(live, now)
        for key in retired:
            self.store.keys.retire(key.kid)
        made = due(live[-1], self.lifetime, now) and self.keys.make(live[-1].number + 1)
        return made or bool(retired)


def due(newest: SigningKey, lifetime: int, now: int) -> bool:
    """Whether the successor of the newest key should be made, so that it can take over in time."""
    return newest.published_at is not None and newest.created_at + lifetime - KEY_AHEAD <= now


def over(live: list[SigningKey], now: int) -> list[SigningKey]:
    """The keys, of those alive in their order, of which no token can be alive any more."""
    return [
        key
        for key, successor in pairwise(live)
        if successor.published_at and successor.published_at + KEY_AHEAD + KEY_KEPT <= now
    ]
