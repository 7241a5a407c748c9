"""The upstream client on real sockets: what ends, what is passed on, what is given back to the pool."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from services.gateway.connection import UpstreamFailed
from services.gateway.upstream import Exchange, Origin, Pool

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
HEAD = b"POST / HTTP/1.1\r\nhost: x\r\n\r\n"


@asynccontextmanager
async def upstream(handler: Handler, limit: int = 10) -> AsyncIterator[Pool]:
    """A pool to a server that does what `handler` does on each connection."""
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        tasks.add(task)
        try:
            await handler(reader, writer)
            await reader.read()  # until the other side closes
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    pool = Pool(Origin("http", "127.0.0.1", server.sockets[0].getsockname()[1]), limit)
    try:
        yield pool
    finally:
        pool.close_idle(older_than=0)
        server.close()
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks)
        await asyncio.sleep(0.01)  # transports say goodbye in a later turn of the loop


async def run(exchange: Exchange, body: bytes = b"", timeout: float = 5.0) -> bytes:
    response = await exchange.run(HEAD, body, 5.0, timeout, lambda: None)
    return await response.read(10_000_000)


async def test_an_aborted_exchange_hands_out_nothing_that_it_still_holds() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecret")

    async with upstream(handler) as pool:
        exchange = Exchange(pool)
        response = await exchange.run(HEAD, b"", 5.0, 5.0, lambda: None)
        await asyncio.sleep(0.05)  # the whole answer is here
        exchange.abort(UpstreamFailed("token_revoked", "no"))
        with pytest.raises(UpstreamFailed, match="no"):
            await response.read(1000)
        exchange.release()


async def test_an_answer_without_a_length_ends_with_the_connection_unless_it_was_aborted() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")
        await writer.drain()
        writer.close()

    async with upstream(handler) as pool:
        exchange = Exchange(pool)
        assert await run(exchange) == b"until the end"
        exchange.release()
        exchange = Exchange(pool)
        response = await exchange.run(HEAD, b"", 5.0, 5.0, lambda: None)
        exchange.abort(UpstreamFailed("cancelled", "gone"))
        with pytest.raises(UpstreamFailed, match="gone"):
            await response.read(1000)
        exchange.release()
        assert pool._count == 0


async def test_an_answer_that_comes_before_the_request_is_out_is_not_waited_past() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno")
        await asyncio.sleep(5)  # never reads the rest

    async with upstream(handler) as pool:
        exchange = Exchange(pool)
        assert await run(exchange, b"x" * 50_000_000, timeout=3.0) == b"no"
        exchange.release()
        assert pool.take() is None, "half a request went over it: it is not used again"


async def test_a_connection_reset_at_once_is_a_failure_of_the_upstream() -> None:
    async def handler(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with upstream(handler, limit=1) as pool:
        for _ in range(200):
            exchange = Exchange(pool)
            with pytest.raises(UpstreamFailed):
                await run(exchange)
            exchange.release()
        assert pool._count == 0


async def test_a_full_pool_says_so_and_failures_give_their_place_back() -> None:
    async def handler(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        await asyncio.sleep(10)

    async with upstream(handler, limit=1) as pool:
        first = Exchange(pool)
        waiting = asyncio.create_task(run(first))
        await asyncio.sleep(0.05)
        with pytest.raises(UpstreamFailed, match="all 1 connections"):
            await run(Exchange(pool))
        first.abort(UpstreamFailed("cancelled", "gone"))
        with pytest.raises(UpstreamFailed, match="gone"):
            await waiting
        first.release()
        assert pool._count == 0


async def test_the_last_check_comes_after_connecting_and_before_the_first_byte() -> None:
    received = bytearray()

    async def handler(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        received.extend(await reader.read(1000))

    def refuse() -> None:
        raise UpstreamFailed("server_disabled", "meanwhile")

    async with upstream(handler) as pool:
        exchange = Exchange(pool)
        with pytest.raises(UpstreamFailed, match="meanwhile"):
            await exchange.run(HEAD, b"", 5.0, 5.0, refuse)
        assert pool._count == 1  # it had connected
        exchange.release()
        await asyncio.sleep(0.05)
    assert not received


async def test_a_slow_reader_slows_the_upstream_down() -> None:
    sent = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n")
        for _ in range(1000):
            writer.write(b"x" * 100_000)
            await writer.drain()
            sent += 100_000

    async with upstream(handler) as pool:
        exchange = Exchange(pool)
        response = await exchange.run(HEAD, b"", 5.0, 5.0, lambda: None)
        await asyncio.sleep(0.5)
        assert sent < 30_000_000, "held back while nobody reads"
        assert len(await response.read(200_000_000)) == 100_000_000
        exchange.release()
