"""How many connections there are, who gets one, and how long an idle one is kept. Real sockets."""

import asyncio

import pytest

from services.gateway import pool as pool_module
from services.gateway.connection import IDLE_FOR, UpstreamFailed
from services.gateway.pool import Pool, Pools
from services.gateway.upstream import UpstreamExchange
from tests.conftest import eventually
from tests.unit.gateway.raw_upstream import OK, answering, begin, call, run, saying, silent, upstream


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time by which connections are idle, in seconds."""
    now = [1000.0]
    monkeypatch.setattr(pool_module, "elapsed", lambda: now[0])
    return now


# -- idle connections ------------------------------------------------------------------------------


async def test_an_idle_connection_is_used_until_it_is_too_old(clock: list[float]) -> None:
    async with upstream(answering) as pool:
        await call(pool)
        (first,) = pool._idle
        clock[0] += IDLE_FOR - 0.01
        assert await call(pool) == b"ok"
        assert pool._idle == [first], "the same one; its age counts from its last use"
        clock[0] += IDLE_FOR - 0.01
        assert await call(pool) == b"ok"
        clock[0] += IDLE_FOR
        assert await call(pool) == b"ok"
        assert pool._idle != [first]
        assert (first.closed, pool._count) == (True, 1)


def test_idle_connections_are_not_kept_for_as_long_as_common_servers_keep_theirs() -> None:
    """uvicorn and Node close them after 5 s; a request that is on its way then is lost."""
    assert 1 <= IDLE_FOR <= 4


async def test_what_is_idle_for_too_long_is_closed_and_nothing_else(clock: list[float]) -> None:
    async with upstream(answering) as pool:
        old, new = UpstreamExchange(pool), UpstreamExchange(pool)
        await run(old)
        await run(new)
        old.release()
        clock[0] += 1
        new.release()
        clock[0] += IDLE_FOR - 1 - 0.01
        pool.close_idle()
        assert pool._count == 2
        clock[0] += 0.01
        pool.close_idle()
        assert (pool._count, len(pool._idle)) == (1, 1)
        assert not pool._idle[0].closed


async def test_an_idle_connection_that_the_upstream_closed_gives_its_place_back() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        writer.close()

    async with upstream(handler) as pool:
        await call(pool)
        await eventually(lambda: pool._idle[0].closed)
        pool.close_idle()
        assert (pool._count, pool._idle) == (0, [])


@pytest.mark.parametrize(
    ("hint", "kept_for"), [(b"timeout=2, max=9", 1), (b"timeout=1", 0), (b"timeout=60", IDLE_FOR)]
)
async def test_an_upstream_may_say_that_it_closes_idle_connections_earlier(
    clock: list[float], hint: bytes, kept_for: float
) -> None:
    polite = OK.replace(b"\r\n\r\n", b"\r\nKeep-Alive: " + hint + b"\r\n\r\n")
    async with upstream(saying(polite, polite)) as pool:
        await call(pool)
        (connection,) = pool._idle
        if kept_for:
            clock[0] += kept_for - 0.01
            assert pool.take() is connection
            pool.put(connection)
        clock[0] += kept_for
        assert pool.take() is None


async def test_the_sweeper_closes_what_is_idle(clock: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "IDLE_FOR", 0.02)  # how often it looks
    async with upstream(answering) as pool:
        pools = Pools(10)
        pools._pools[pool.origin, ""] = pool
        await pools.start()
        await call(pool)
        await asyncio.sleep(0.1)
        assert pool._count == 1
        clock[0] += IDLE_FOR
        await eventually(lambda: pool._count == 0)
        await pools.stop()


async def test_after_the_end_nothing_is_kept() -> None:
    async with upstream(answering) as pool:
        await run(late := UpstreamExchange(pool))
        await call(pool)
        await pool.stop()
        assert pool._count == 1
        late.release()
        assert pool._count == 0


# -- the limit -------------------------------------------------------------------------------------


async def test_at_the_limit_callers_wait_for_a_connection_in_their_order() -> None:
    async with upstream(answering, limit=1) as pool:
        await run(first := UpstreamExchange(pool))
        order: list[int] = []

        async def later(number: int) -> None:
            await call(pool)
            order.append(number)

        tasks = [asyncio.create_task(later(number)) for number in range(5)]
        await eventually(lambda: len(pool._waiters) == 5)
        first.release()
        await asyncio.gather(*tasks)
        assert order == [0, 1, 2, 3, 4]
        assert (pool._count, len(pool._idle)) == (1, 1), "and all used the same one"


async def test_who_waits_gets_the_place_of_a_connection_that_is_closed() -> None:
    async with upstream(answering, limit=1) as pool:
        await begin(first := UpstreamExchange(pool))  # its answer is not read
        waiting = asyncio.create_task(call(pool))
        await eventually(lambda: len(pool._waiters) == 1)
        first.abort(UpstreamFailed("cancelled", "gone"))
        first.release()
        assert await waiting == b"ok"
        assert pool._count == 1


async def test_who_waits_too_long_is_told_so_and_takes_nothing() -> None:
    async with upstream(silent, limit=2) as pool:
        busy = [asyncio.create_task(begin(UpstreamExchange(pool))) for _ in range(2)]
        await eventually(lambda: pool._count == 2)
        with pytest.raises(UpstreamFailed, match="all 2 connections to it are in use") as failed:
            await begin(UpstreamExchange(pool), connect=0.05)
        assert failed.value.reason == "upstream_busy"
        assert (pool._count, len(pool._waiters)) == (2, 0)
        for task in busy:
            task.cancel()
        await asyncio.wait(busy)


async def test_a_waiting_line_that_is_long_grows_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "QUEUE", 2)
    async with upstream(answering, limit=1) as pool:
        await run(first := UpstreamExchange(pool))
        waiting = [asyncio.create_task(call(pool)) for _ in range(2)]
        await eventually(lambda: len(pool._waiters) == 2)
        with pytest.raises(UpstreamFailed, match="in use"):
            async with asyncio.timeout(1):
                await call(pool)
        first.release()
        assert await asyncio.gather(*waiting) == [b"ok", b"ok"]


@pytest.mark.parametrize("closing", [False, True], ids=["a connection", "a place"])
async def test_what_is_given_to_somebody_who_has_just_gone_goes_to_the_next(closing: bool) -> None:
    async with upstream(answering, limit=1) as pool:
        await run(first := UpstreamExchange(pool))
        gone, next_one = (asyncio.create_task(call(pool)) for _ in range(2))
        await eventually(lambda: len(pool._waiters) == 2)
        if closing:
            first.abort(UpstreamFailed("cancelled", "gone"))
        first.release()
        gone.cancel()  # in the same turn of the loop
        assert await next_one == b"ok"
        assert gone.cancelled()
        assert pool._count == 1


async def test_open_streams_leave_connections_to_calls() -> None:
    events = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
    async with upstream(saying(events), limit=4) as pool:
        streams = [UpstreamExchange(pool, lasting=True) for _ in range(3)]
        for stream in streams:
            await begin(stream)
        with pytest.raises(UpstreamFailed, match="3 streams to it are open") as failed:
            await begin(fourth := UpstreamExchange(pool, lasting=True))
        fourth.release()
        assert failed.value.reason == "upstream_busy"
        await begin(a_call := UpstreamExchange(pool))
        a_call.release()
        streams[0].release()
        streams[0].release()  # more than once is nothing
        await begin(another := UpstreamExchange(pool, lasting=True))
        for exchange in (*streams, another):
            exchange.release()
        assert (pool._streams, pool._count) == (0, 0)


def test_a_pool_of_one_connection_allows_one_stream() -> None:
    pool = Pool(("http", "h", 1), 1)  # type: ignore[arg-type]
    pool.enter_stream()
    with pytest.raises(UpstreamFailed):
        pool.enter_stream()
