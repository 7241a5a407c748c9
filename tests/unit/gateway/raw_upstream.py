"""An upstream that is a bare socket: what it does on each connection is up to the test."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from services.gateway.dialing import Origin
from services.gateway.pool import Pool
from services.gateway.upstream import Response, UpstreamExchange

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
HEAD = b"POST / HTTP/1.1\r\nhost: x\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@asynccontextmanager
async def listening(
    handler: Handler, tls: ssl.SSLContext | None = None, receive_buffer: int | None = None
) -> AsyncIterator[int]:
    """The port of a server that does what `handler` does, and then waits until the other side closes."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        tasks.add(task)
        try:
            await handler(reader, writer)
            await reader.read()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            tasks.discard(task)

    sock = socket.create_server(("127.0.0.1", 0))
    if receive_buffer:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    server = await asyncio.start_server(serve, sock=sock, ssl=tls)
    try:
        yield sock.getsockname()[1]
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks)


@asynccontextmanager
async def upstream(
    handler: Handler, limit: int = 10, *, receive_buffer: int | None = None
) -> AsyncIterator[Pool]:
    """A pool to a server that does what `handler` does on each connection."""
    async with listening(handler, receive_buffer=receive_buffer) as port, pool_to(port, limit) as pool:
        yield pool
    await asyncio.sleep(0.01)  # transports say goodbye in a later turn of the loop


@asynccontextmanager
async def pool_to(port: int, limit: int = 10) -> AsyncIterator[Pool]:
    pool = Pool(Origin("http", "127.0.0.1", port), limit, server="demo")
    try:
        yield pool
    finally:
        await pool.stop()


async def begin(
    exchange: UpstreamExchange,
    body: bytes = b"",
    timeout: float = 5.0,
    idle: float = 5.0,
    connect: float = 5.0,
) -> Response:
    return await exchange.run(HEAD, body, connect, timeout, lambda: None, idle_timeout=idle)


async def run(
    exchange: UpstreamExchange, body: bytes = b"", timeout: float = 5.0, idle: float = 5.0
) -> bytes:
    return await (await begin(exchange, body, timeout, idle)).read(200_000_000)


async def call(pool: Pool, timeout: float = 5.0) -> bytes:
    """One whole exchange: asked, read, given back."""
    exchange = UpstreamExchange(pool)
    try:
        return await run(exchange, timeout=timeout)
    finally:
        exchange.release()


def saying(*answers: bytes) -> Handler:
    """Answers each request with the next of `answers`, all on the same connection if it may."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()

    return handler


async def answering(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers every request."""
    while await reader.readuntil(b"\r\n\r\n"):
        writer.write(OK)


async def silent(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
    """Never answers."""
    await asyncio.Event().wait()
