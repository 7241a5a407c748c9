"""Starting and stopping the parts of a service in order.

An app's factory builds its parts and sets them on `app.state`; its lifespan is `running(...)` over them.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Protocol


class Part(Protocol):
    """Something with a life: a connection, a follower, a task."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


@asynccontextmanager
async def running(*parts: Part) -> AsyncIterator[None]:
    """Start `parts` in order; stop them in reverse order, whatever happens.

    A part whose start failed halfway is stopped too, so `stop` must stand that.
    """
    async with AsyncExitStack() as stack:
        for part in parts:
            stack.push_async_callback(part.stop)
            await part.start()
        yield


async def cancel(task: "asyncio.Task[Any] | None") -> None:
    """Cancel a background task and wait until it has ended.

    It is asked more than once: `asyncio.wait_for` of Python 3.11, which our NATS client uses, can lose a
    cancellation that arrives together with what it waits for.
    """
    while task and not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=0.5)


class Tasks:
    """Background tasks, held until they end: the event loop itself would let go of them."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._running)

    def spawn(self, work: Coroutine[Any, Any, None], name: str | None = None) -> "asyncio.Task[None]":
        task = asyncio.create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return task

    async def cancel(self) -> None:
        """Cancel all and wait until they have ended."""
        for task in list(self._running):
            await cancel(task)

    async def join(self) -> None:
        """Wait until all have ended, also those that begin meanwhile."""
        while self._running:
            await asyncio.wait(self._running)
