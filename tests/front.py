"""What stands before the replicas of one instance: one origin, and each request to the next replica."""

import asyncio
import itertools
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from services.embedded.dispatcher import owner_of

Choose = Callable[[list[str]], str]

HEAD_LIMIT = 64 * 1024  # bytes


def in_turn() -> Choose:
    """Each replica after the other."""
    turns = itertools.count()
    return lambda replicas: replicas[next(turns) % len(replicas)]


@dataclass
class Front:
    """A reverse proxy that balances requests, not connections: every connection carries one request.

    So the requests of one session come to different replicas. What is not the gateway's goes to `services`.
    """

    services: str = ""  # an origin, as all of these
    replicas: list[str] = field(default_factory=list)
    choose: Choose = field(default_factory=in_turn)
    requests: list[tuple[str, bytes]] = field(default_factory=list)  # each replica's, by their heads
    url: str = ""
    _server: asyncio.Server | None = None
    _serving: set[asyncio.Task[None]] = field(default_factory=set)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=HEAD_LIMIT)
        host, port = self._server.sockets[0].getsockname()
        self.url = f"http://{host}:{port}"

    async def stop(self) -> None:
        """Cut off what is open."""
        assert self._server
        self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream: asyncio.StreamWriter | None = None
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            origin = urlsplit(self._next(head))
            answer, upstream = await asyncio.open_connection(origin.hostname, origin.port)
            upstream.write(closing(head))
            await either(pump(reader, upstream), pump(answer, writer))
        except (asyncio.IncompleteReadError, OSError):
            pass  # one of the two went away, and the other learns it by the end of its connection
        finally:
            for end in filter(None, (upstream, writer)):
                end.close()

    def _next(self, head: bytes) -> str:
        """The origin that this request goes to."""
        path = head.split(b" ", 2)[1].decode().partition("?")[0]
        if owner_of(path) != "gateway" or not self.replicas:
            return self.services
        replica = self.choose(self.replicas)
        self.requests.append((replica, head))
        return replica


def closing(head: bytes) -> bytes:
    """The head of a request after which the connection ends."""
    lines = head[:-4].split(b"\r\n")
    kept = [line for line in lines if not line.lower().startswith(b"connection:")]
    return b"\r\n".join([*kept, b"Connection: close", b"", b""])


async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Pass on what comes, as it comes, to its end."""
    while (chunk := await reader.read(HEAD_LIMIT)) and not writer.is_closing():
        writer.write(chunk)
        await writer.drain()


async def either(*directions: Coroutine[Any, Any, None]) -> None:
    """Run until one of them has ended, and raise what it raised."""
    tasks = [asyncio.ensure_future(direction) for direction in directions]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
