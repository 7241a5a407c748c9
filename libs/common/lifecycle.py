"""Starting and stopping the parts of a service in order.

An app's factory builds its parts and sets them on `app.state`; its lifespan is `running(...)` over them.
"""

import asyncio
from collections.abc import AsyncIterator
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
