"""Starting and stopping the parts of a service in order.

An app's factory builds its parts and sets them on `app.state`; its lifespan is `running(...)` over them.
"""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Protocol


class Part(Protocol):
    """Something with a life: a connection, a follower, a task."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


@asynccontextmanager
async def running(*parts: Part) -> AsyncIterator[None]:
    """Start `parts` in order; stop those that started in reverse order, whatever happens."""
    async with AsyncExitStack() as stack:
        for part in parts:
            await part.start()
            stack.push_async_callback(part.stop)
        yield
