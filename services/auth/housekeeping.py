"""Clears away, now and then, what is over."""

import asyncio

import structlog

from libs.common.lifecycle import cancel
from services.auth.store import Store

log = structlog.get_logger(__name__)

EVERY = 600.0  # seconds


class Housekeeping:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="auth-housekeeping")

    async def stop(self) -> None:
        await cancel(self._task)

    async def _run(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self._store.revocations.sweep)
            except Exception:
                log.exception("housekeeping_failed")
            await asyncio.sleep(EVERY)
