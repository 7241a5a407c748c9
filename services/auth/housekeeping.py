"""Clears away, now and then, what is over, and keeps the signing keys fresh."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from libs.common.lifecycle import cancel
from services.auth.rotation import Rotation
from services.auth.store import Store

log = structlog.get_logger(__name__)

EVERY = 600.0  # seconds


class Housekeeping:
    def __init__(self, store: Store, rotation: Rotation) -> None:
        self._store, self._rotation = store, rotation
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="auth-housekeeping")

    async def stop(self) -> None:
        await cancel(self._task)

    async def sweep(self) -> None:
        """Delete what nothing asks for any more."""
        await asyncio.to_thread(self._store.revocations.sweep)
        await asyncio.to_thread(self._store.clients.sweep)

    async def _run(self) -> None:
        while True:
            for task in (self.sweep, self._rotation.proceed):
                await _attempt(task)
            await asyncio.sleep(EVERY)


async def _attempt(task: Callable[[], Awaitable[None]]) -> None:
    try:
        await task()
    except Exception:
        log.exception("housekeeping_failed")
