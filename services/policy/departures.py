"""Forgets the group and the switch of those whom auth has removed: policy follows the log."""

import asyncio
from functools import partial

import nats.errors
import structlog
from nats.js.errors import APIError

from libs.common.bus import Bus
from libs.common.control.entries import User
from libs.common.control.follower import STREAM, Follower
from libs.common.errors import LockgateError
from libs.common.lifecycle import cancel
from services.policy.changes import Changes
from services.policy.store import PolicyStore

log = structlog.get_logger(__name__)

RETRY_AFTER = 5.0  # seconds
CATCH_UP = 10.0  # seconds

# Who the record names: auth has recorded who removed them.
_POLICY = User(version=0, id="policy", email="")


class Departures:
    """Compares at start, and whenever a user's entry is removed."""

    def __init__(self, bus: Bus, store: PolicyStore, changes: Changes, follower: Follower) -> None:
        self._bus, self._store, self._changes, self._follower = bus, store, changes, follower
        self._removed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        follower.subscribe(self._on_change)

    async def start(self) -> None:
        self._removed.set()
        self._task = asyncio.create_task(self._run(), name="departures")

    async def stop(self) -> None:
        await cancel(self._task)

    def _on_change(self, key: str, value: bytes | None, revision: int) -> None:
        # A log that was lost ends with the keys: only then it is known who is there.
        if (key.startswith("user.") and value is None) or key == "keys":
            self._removed.set()

    async def _run(self) -> None:
        while True:
            await self._removed.wait()
            self._removed.clear()
            try:
                for user in await self.departed():
                    forget = partial(self._store.members.forget, user)
                    await self._changes.make(_POLICY, "member_forgotten", forget)
            except Exception as error:  # whatever it is: they are still to be forgotten
                expected = isinstance(error, (LockgateError, APIError, nats.errors.Error, OSError))
                log.warning("departures_failed", error=repr(error), exc_info=not expected)
                self._removed.set()
                await asyncio.sleep(RETRY_AFTER)

    async def departed(self) -> list[str]:
        """Of whom something is kept, and whom auth does not know.

        What is kept is read first, and then the log as it is after that: whoever came meanwhile is not taken
        for one who has gone. Auth writes its keys after its users: without them the log is not all there.
        """
        kept = await asyncio.to_thread(self._store.members.kept)
        end = (await self._bus.js.stream_info(STREAM)).state.last_seq
        await self._follower.wait_for(lambda: self._follower.applied >= end, CATCH_UP)
        tables = self._follower.tables
        return sorted(kept - tables.users.keys()) if tables.keys else []
