"""What a service keeps of people goes when auth removes them: it follows the log."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Set

import nats.errors
import structlog
from nats.js.errors import APIError

from libs.common.bus import Bus
from libs.common.control.follower import STREAM, Follower
from libs.common.errors import LockgateError, Unavailable
from libs.common.lifecycle import cancel

log = structlog.get_logger(__name__)

LOOK_EVERY = 600.0  # seconds; for what was stored of somebody just as they were removed
RETRY_AFTER = 5.0  # seconds
CATCH_UP = 10.0  # seconds


class Departures:
    """A part of a service (libs.common.lifecycle). The follower must have started."""

    def __init__(
        self,
        bus: Bus,
        follower: Follower,
        kept: Callable[[], Set[str]],
        forget: Callable[[str], Awaitable[None]],
    ) -> None:
        """`kept` tells of which users something is kept, and is called in a thread; `forget` lets go of what
        is kept of one of them."""
        self._bus, self._follower, self._kept, self._forget = bus, follower, kept, forget
        self._due = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        follower.subscribe(self._on_change)

    async def start(self) -> None:
        """Compare now, whenever a user's entry is removed, and now and then."""
        self._due.set()
        self._task = asyncio.create_task(self._run(), name="departures")

    async def stop(self) -> None:
        self._stopping = True  # ends it where the cancellation is lost to an answer (see `cancel`)
        await cancel(self._task)

    def _on_change(self, key: str, value: bytes | None, revision: int) -> None:
        # A log that was lost ends with the keys: only then it is known who is there.
        if (key.startswith("user.") and value is None) or key == "keys":
            self._due.set()

    async def _run(self) -> None:
        while not self._stopping:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY):
                    await self._due.wait()
            self._due.clear()
            try:
                for user in await self.departed():
                    await self._forget(user)
            except Exception as error:  # whatever it is: they are still to be forgotten
                unexpected = not isinstance(error, LockgateError)
                log.warning("departures_failed", error=repr(error), exc_info=unexpected)
                self._due.set()
                await asyncio.sleep(RETRY_AFTER)

    async def departed(self) -> list[str]:
        """Of whom something is kept, and whom auth does not know. Raises `Unavailable`.

        What is kept is read first, and then the log as it is after that: whoever came meanwhile is not taken
        for one who has gone. Auth writes its keys after its users: without them the log is not all there.
        """
        kept = await asyncio.to_thread(self._kept)
        try:
            end = (await self._bus.js.stream_info(STREAM)).state.last_seq
        except (APIError, nats.errors.Error, TimeoutError, OSError) as error:
            raise Unavailable(f"the control log does not answer: {error!r}") from error
        await self._follower.wait_for(lambda: self._follower.applied >= end, CATCH_UP)
        tables = self._follower.tables
        # An entry that this version cannot read is not one that was removed.
        there = tables.users.keys() | {key.removeprefix("user.") for key in tables.unreadable}
        return sorted(kept - there) if tables.keys else []
