"""Whether all that was ever changed holds: for a change that finds everything as it should be.

There is nothing to write then, and so no revision to wait for. But what was changed before, by a request that
was told "pending" or is still waiting, may hold nowhere yet.
"""

import nats.errors
from nats.js.errors import APIError

from libs.common.bus import Bus
from libs.common.control.follower import STREAM, Follower
from libs.common.control.owner import Owner, Receipt
from libs.common.errors import Unavailable

CATCH_UP = 10.0  # seconds


class Confirmation:
    """Gives receipts for all of policy's part of the control log."""

    def __init__(self, bus: Bus, owner: Owner, follower: Follower) -> None:
        self._bus, self._owner, self._follower = bus, owner, follower

    async def receipt(self) -> Receipt:
        """For everything that is committed now. It never raises for a bus that is away."""
        try:
            end = await self._end()
            await self._follower.wait_for(lambda: self._follower.applied >= end, CATCH_UP)
            await self._owner.reconcile()
            return await self._owner.receipt(await self._end())
        except (APIError, nats.errors.Error, TimeoutError, OSError, Unavailable):
            return Receipt(0, False, detail="the control log cannot be read now; what is pending is unknown")

    async def _end(self) -> int:
        """The newest revision, whoever wrote it."""
        return (await self._bus.js.stream_info(STREAM)).state.last_seq
