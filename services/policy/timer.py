"""Turns on again what was switched off until now."""

import asyncio
import contextlib
from functools import partial

import structlog

from libs.common.clock import now
from libs.common.control.entries import User
from libs.common.control.follower import Follower
from libs.common.errors import LockgateError
from libs.common.lifecycle import cancel
from services.policy.changes import Changes
from services.policy.domain import Precondition
from services.policy.store import PolicyStore
from services.policy.switches import Switch

log = structlog.get_logger(__name__)

LOOK_EVERY = 30.0  # seconds, at the most: the clock may have been set, or the machine suspended
RETRY_AFTER = 2.0  # seconds

# Who the record names: nobody pressed a button.
TIMER = User(version=0, id="timer", email="")

_SWITCHES = frozenset({"org", "server", "group", "member", "client"})  # the kinds of entries that have one


class Timer:
    """Looks at what the database says: when it starts, when the next end has come, and when the control log
    tells of a change, which may be another process's. Each end is recorded once, whoever comes first."""

    def __init__(self, store: PolicyStore, changes: Changes, follower: Follower) -> None:
        self._store, self._changes = store, changes
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        follower.subscribe(self._on_change)

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="switch-timer")

    async def stop(self) -> None:
        await cancel(self._task)

    def _on_change(self, key: str, value: bytes | None, revision: int) -> None:
        if key.partition(".")[0] in _SWITCHES:
            self._changed.set()

    async def _run(self) -> None:
        while True:
            self._changed.clear()
            try:
                await self._end_due()
                seconds = await self._to_next()
            except Exception:  # whatever it is: what is due stays due
                log.exception("switch_timer_failed")
                seconds = RETRY_AFTER
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._changed.wait()

    async def _end_due(self) -> None:
        while due := await asyncio.to_thread(self._store.switches.due, now()):
            await asyncio.gather(*(self._end(switch) for switch in due))

    async def _end(self, switch: Switch) -> None:
        write = partial(
            self._store.switches.turn_on, switch.level, switch.subject, Precondition(version=switch.version)
        )
        try:
            await self._changes.make(TIMER, f"{switch.level}_enabled", write)
        except LockgateError as error:  # somebody else was here first, or gave it another end
            log.info("switch_not_ended", level=switch.level, subject=switch.subject, error=str(error))

    async def _to_next(self) -> float:
        """Seconds until there is something to do, as far as is known now."""
        end = await asyncio.to_thread(self._store.switches.next_end)
        return max(0.0, min(LOOK_EVERY, (end - now()).total_seconds())) if end else LOOK_EVERY
