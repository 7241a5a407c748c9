"""One HTTP exchange as the fronts see it, whether the client is connected here or at another replica."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar

from libs.common.lifecycle import cancel
from services.gateway.asgi import Gone, Send, respond
from services.gateway.connection import Header
from services.gateway.sse import KEEP_ALIVE
from services.gateway.ticket import Caller

T = TypeVar("T")

# The path it came to: `/mcp/{server}` for Streamable HTTP, `/mcp/{server}/sse` for HTTP+SSE.
Front: TypeAlias = Literal["http", "sse"]

EVENT_STREAM: list[Header] = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


@dataclass(slots=True)
class Exchange:
    """A request of an authenticated caller, its body read, and the means to answer it.

    `server` is empty for the gateway as a whole. The caller's session is the id that came in the header, or,
    for HTTP+SSE, in the query. `gone` returns when the client is not there any more.
    """

    method: str
    front: Front
    server: str
    caller: Caller
    headers: list[Header]
    body: bytes
    send: Send
    gone: Callable[[], Awaitable[None]]
    started: bool = False
    ended: bool = False

    def header(self, name: bytes) -> bytes:
        return next((value.strip() for key, value in self.headers if key == name), b"")

    async def respond(self, status: int, body: bytes = b"", headers: list[Header] | None = None) -> None:
        """A whole answer; without a body it has no content type either."""
        self.started = True
        if body:
            await respond(self.send, status, body, headers or [])
            return
        out = [(b"content-length", b"0"), *(headers or [])]
        await self.send({"type": "http.response.start", "status": status, "headers": out})
        await self.send({"type": "http.response.body", "body": b""})

    async def open_events(self, headers: list[Header] | None = None) -> None:
        """Begin an answer of server-sent events."""
        self.started = True
        out = [*EVENT_STREAM, *(headers or [])]
        await self.send({"type": "http.response.start", "status": 200, "headers": out})

    async def event(self, event: bytes) -> None:
        await self.send({"type": "http.response.body", "body": event, "more_body": True})

    async def keep_alive(self) -> None:
        await self.event(KEEP_ALIVE)

    async def end(self) -> None:
        """End the events. May be called twice: by who wrote them, and by who ended the stream."""
        if self.ended:
            return
        self.ended = True
        await self.send({"type": "http.response.body", "body": b""})

    async def while_there(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, which is cancelled when the client goes away. Raises `Gone` then."""
        task, gone = asyncio.ensure_future(work), asyncio.ensure_future(self.gone())
        try:
            await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise Gone
            return task.result()
        finally:
            await cancel(gone)
            await cancel(task)
