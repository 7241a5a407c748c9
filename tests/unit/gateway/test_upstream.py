"""The upstream client on real sockets: what ends, what is passed on, what is given back to the pool."""

import asyncio
import re

import pytest

from services.gateway.connection import HEADER_COUNT, HEADER_LIMIT, HIGH_WATER, Connection, UpstreamFailed
from services.gateway.pool import Pool
from services.gateway.upstream import UpstreamExchange, target_of
from tests.conftest import eventually
from tests.unit.gateway.raw_upstream import HEAD, OK, begin, call, run, saying, silent, upstream


async def test_an_aborted_exchange_hands_out_nothing_that_it_still_holds() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecret")

    async with upstream(handler) as pool:
        exchange = UpstreamExchange(pool)
        response = await begin(exchange)
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
        exchange = UpstreamExchange(pool)
        assert await run(exchange) == b"until the end"
        exchange.release()
        exchange = UpstreamExchange(pool)
        response = await begin(exchange)
        exchange.abort(UpstreamFailed("cancelled", "gone"))
        with pytest.raises(UpstreamFailed, match="gone"):
            await response.read(1000)
        exchange.release()
        assert pool._count == 0


async def test_an_answer_that_comes_before_the_request_is_out_is_not_waited_past() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno")
        await silent(reader, writer)  # never reads the rest

    async with upstream(handler, receive_buffer=65_536) as pool:
        exchange = UpstreamExchange(pool)
        assert await run(exchange, b"x" * 50_000_000, timeout=3.0) == b"no"
        connection = exchange._connection
        exchange.release()
        assert (pool.take(), pool._count) == (None, 0), "half a request went over it: it is not used again"
        await eventually(lambda: connection and connection._transport is None, within=2)


async def test_a_connection_reset_at_once_is_a_failure_of_the_upstream() -> None:
    async def handler(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with upstream(handler, limit=1) as pool:
        for _ in range(200):
            exchange = UpstreamExchange(pool)
            with pytest.raises(UpstreamFailed):
                await run(exchange)
            exchange.release()
        assert pool._count == 0


async def test_the_last_check_comes_after_connecting_and_before_the_first_byte() -> None:
    received = bytearray()

    async def handler(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        received.extend(await reader.read(1000))

    def refuse() -> None:
        raise UpstreamFailed("server_disabled", "meanwhile")

    async with upstream(handler) as pool:
        exchange = UpstreamExchange(pool)
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
        exchange = UpstreamExchange(pool)
        response = await begin(exchange)
        await asyncio.sleep(0.5)
        assert sent < 30_000_000, "held back while nobody reads"
        assert len(await response.read(200_000_000)) == 100_000_000
        exchange.release()


# -- time ------------------------------------------------------------------------------------------


async def test_an_upstream_that_says_nothing_is_given_up_after_the_response_timeout() -> None:
    async with upstream(silent) as pool:
        exchange = UpstreamExchange(pool)
        with pytest.raises(UpstreamFailed, match=r"did not answer within 0.1 s") as failed:
            await begin(exchange, timeout=0.1)
        exchange.release()
        assert (failed.value.reason, pool._count) == ("upstream_timeout", 0)


async def test_interim_answers_do_not_prolong_the_wait_for_the_answer() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        while True:
            writer.write(b"HTTP/1.1 102 Processing\r\n\r\n")
            await asyncio.sleep(0.02)

    async with upstream(handler) as pool:
        exchange = UpstreamExchange(pool)
        async with asyncio.timeout(3):
            with pytest.raises(UpstreamFailed, match="did not answer"):
                await begin(exchange, timeout=0.2, idle=0.05)
        exchange.release()


@pytest.mark.parametrize("sent", [b"", b"half of it"], ids=["nothing", "half"])
async def test_an_answer_that_stops_in_the_middle_is_given_up_after_the_idle_timeout(sent: bytes) -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n" + sent

    async with upstream(saying(answer)) as pool:
        exchange = UpstreamExchange(pool)
        response = await begin(exchange, idle=0.2)
        with pytest.raises(UpstreamFailed, match=r"sent nothing for 0.2 s in the middle") as failed:
            async with asyncio.timeout(3):
                await response.read(1000)
        exchange.release()
        assert (failed.value.reason, pool._count) == ("upstream_timeout", 0)


async def test_an_answer_may_take_longer_than_both_timeouts_if_something_comes_all_the_time() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 30\r\n\r\n")
        for _ in range(30):
            await asyncio.sleep(0.03)
            writer.write(b"x")

    async with upstream(handler) as pool:
        exchange = UpstreamExchange(pool)
        assert await run(exchange, timeout=0.4, idle=0.3) == b"x" * 30
        exchange.release()


async def test_an_event_stream_may_be_silent_for_ever() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: Text/Event-Stream;charset=utf-8\r\n\r\n: hello\n\n")
        await asyncio.sleep(0.5)
        writer.write(b"data: 1\n\n")
        await writer.drain()
        writer.close()

    async with upstream(handler) as pool:
        exchange = UpstreamExchange(pool)
        assert await run(exchange, timeout=0.2, idle=0.1) == b": hello\n\ndata: 1\n\n"
        exchange.release()


async def test_time_in_which_the_caller_does_not_read_does_not_count_against_the_upstream() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 50000000\r\n\r\n" + b"x" * 50_000_000)
        await writer.drain()

    async with upstream(handler) as pool:
        exchange = UpstreamExchange(pool)
        response = await begin(exchange, idle=0.2)
        await asyncio.sleep(0.6)
        assert len(await response.read(100_000_000)) == 50_000_000
        exchange.release()


async def test_an_upstream_that_stopped_while_the_caller_did_not_read_is_given_up_too() -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n" + b"x" * (HIGH_WATER + 10_000)
    async with upstream(saying(answer)) as pool:
        exchange = UpstreamExchange(pool)
        response = await begin(exchange, idle=0.2)
        await eventually(lambda: exchange._connection and exchange._connection._paused)
        await asyncio.sleep(0.3)
        with pytest.raises(UpstreamFailed, match="in the middle of its answer"):
            async with asyncio.timeout(3):
                await response.read(2_000_000)
        exchange.release()


async def test_an_upstream_that_stops_reading_the_request_is_given_up_after_the_idle_timeout() -> None:
    async with upstream(silent) as pool:
        exchange = UpstreamExchange(pool)
        with pytest.raises(UpstreamFailed, match=r"stopped reading the request for 0.2 s") as failed:
            async with asyncio.timeout(3):
                await begin(exchange, b"x" * 50_000_000, timeout=60.0, idle=0.2)
        exchange.release()
        assert (failed.value.reason, pool._count) == ("upstream_timeout", 0)


async def test_a_slow_reader_of_a_large_request_has_the_response_timeout_from_its_end() -> None:
    body, took = b"x" * 16_000_000, 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal took
        await reader.readuntil(b"\r\n\r\n")
        while took < len(body):
            took += len(await reader.read(262_144))
            await asyncio.sleep(0.03)
        writer.write(OK)

    async with upstream(handler, receive_buffer=262_144) as pool:
        exchange = UpstreamExchange(pool)
        began = asyncio.get_running_loop().time()
        assert await run(exchange, body, timeout=1.2, idle=0.8) == b"ok"
        assert asyncio.get_running_loop().time() - began > 1.3, "or this proves nothing"
        exchange.release()


async def test_a_connection_that_timed_no_call_out_is_not_closed_by_the_timer_of_an_earlier_one() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.4)
        writer.write(OK)

    async with upstream(handler) as pool:
        assert await call(pool, timeout=0.2) == b"ok"
        assert await call(pool, timeout=5) == b"ok"
        assert pool._count == 1


async def test_an_idle_connection_outlives_the_time_that_its_last_call_had() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(OK)

    async with upstream(handler) as pool:
        exchange = UpstreamExchange(pool)
        await run(exchange, timeout=0.05, idle=0.05)
        exchange.release()
        await asyncio.sleep(0.2)
        assert not pool._idle[0].closed


async def test_a_later_call_on_a_connection_may_have_less_time_than_an_earlier_one() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await silent(reader, writer)

    async with upstream(handler) as pool:
        assert await call(pool, timeout=60) == b"ok"
        async with asyncio.timeout(3):
            with pytest.raises(UpstreamFailed, match=r"did not answer within 0.1 s"):
                await call(pool, timeout=0.1)


# -- what is no answer -----------------------------------------------------------------------------

OK_LINE = b"HTTP/1.1 200 OK\r\n"
NO_ANSWERS = {
    "content-length and transfer-encoding": (
        OK_LINE + b"content-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "Transfer-Encoding can't be present with Content-Length",
    ),
    "transfer-encoding and content-length": (
        OK_LINE + b"transfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "Content-Length can't be present with Transfer-Encoding",
    ),
    "two lengths": (
        OK_LINE + b"content-length: 2\r\ncontent-length: 3\r\n\r\nok",
        "Duplicate Content-Length",
    ),
    "negative length": (OK_LINE + b"content-length: -1\r\n\r\n", "Invalid character in Content-Length"),
    "compressed for the transfer": (
        OK_LINE + b"transfer-encoding: gzip, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        "its transfer encoding is not just chunked",
    ),
    "an unknown transfer encoding": (OK_LINE + b"transfer-encoding: x\r\n\r\nok", "not just chunked"),
    "a chunk of endless size": (
        OK_LINE + b"transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        "Chunk size overflow",
    ),
    "a header split by a line feed": (OK_LINE + b"x: a\nset-cookie: b\r\n\r\n", "Missing expected CR"),
    "a header split by a carriage return": (OK_LINE + b"x: a\rset-cookie: b\r\n\r\n", "Missing expected LF"),
    "a folded header": (OK_LINE + b"x: a\r\n b\r\n\r\n", "Unexpected whitespace"),
    "a zero in a header": (OK_LINE + b"x: a\0b\r\n\r\n", "Invalid header value char"),
    "a space before the colon": (OK_LINE + b"x : a\r\n\r\n", "Invalid header"),
    "an upgrade": (
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nhello",
        "changes to another protocol",
    ),
    "a status that does not exist": (b"HTTP/1.1 999 Odd\r\ncontent-length: 0\r\n\r\n", "no HTTP status 999"),
    "another protocol": (b"SSH-2.0-OpenSSH_9.2\r\n", "Expected HTTP/"),
    "too many headers": (
        OK_LINE + b"x: y\r\n" * (HEADER_COUNT + 1) + b"\r\n",
        f"more than {HEADER_COUNT} headers",
    ),
    "headers that are too long": (OK_LINE + b"x: " + b"a" * HEADER_LIMIT + b"\r\n\r\n", "longer than"),
}


@pytest.mark.parametrize("name", NO_ANSWERS)
async def test_what_is_no_proper_answer_is_refused_and_says_why(name: str) -> None:
    answer, why = NO_ANSWERS[name]
    async with upstream(saying(answer)) as pool:
        with pytest.raises(UpstreamFailed, match=re.escape(why)) as failed:
            await call(pool)
        assert (failed.value.reason, pool._count) == ("upstream_bad_answer", 0)


@pytest.mark.parametrize(
    "before",
    [OK_LINE, OK_LINE + b"transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n"],
    ids=["head", "trailer"],
)
async def test_a_header_without_an_end_is_not_held_for_ever(before: bytes) -> None:
    sent = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(before + b"x: ")
        while True:
            writer.write(b"a" * 10_000)
            await writer.drain()
            sent += 10_000

    async with upstream(handler) as pool:
        with pytest.raises(UpstreamFailed, match=f"the headers are longer than {HEADER_LIMIT} bytes"):
            await call(pool)
        assert sent < 20_000_000


async def test_as_many_headers_as_are_allowed_arrive() -> None:
    lines = b"".join(b"x-%d: y\r\n" % number for number in range(HEADER_COUNT - 1))
    async with upstream(saying(OK_LINE + lines + b"content-length: 2\r\n\r\nok")) as pool:
        exchange = UpstreamExchange(pool)
        response = await begin(exchange)
        assert (len(response.headers), response.header(b"x-198")) == (HEADER_COUNT, b"y")
        exchange.release()


# -- what is one, and what of it is passed on ----------------------------------------------------------


async def test_interim_answers_are_passed_over() -> None:
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
    async with upstream(saying(early + OK)) as pool:
        exchange = UpstreamExchange(pool)
        response = await begin(exchange)
        assert (response.status, response.headers) == (200, [(b"content-length", b"2")])
        assert await response.read(10) == b"ok"
        exchange.release()
        assert pool.take(), "it may be used again"


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_without_a_body_ends_with_its_head(status: int) -> None:
    bare = b"HTTP/1.1 %d None\r\ncontent-length: 5\r\n\r\n" % status
    async with upstream(saying(bare, OK)) as pool:
        assert await call(pool) == b""
        assert await call(pool) == b"ok"
        assert pool._count == 1


async def test_trailers_are_no_headers() -> None:
    chunked = OK_LINE + b"transfer-encoding: chunked\r\n\r\n"
    body = b"1\r\no\r\n1;ext=1\r\nk\r\n0\r\nset-cookie: a=b\r\nmcp-session-id: x\r\n\r\n"
    async with upstream(saying(chunked + body, OK)) as pool:
        exchange = UpstreamExchange(pool)
        response = await begin(exchange)
        assert await response.read(10) == b"ok"
        assert response.headers == [(b"transfer-encoding", b"chunked")]
        exchange.release()
        assert await call(pool) == b"ok"
        assert pool._count == 1


@pytest.mark.parametrize(
    "surplus",
    [OK.replace(b"ok", b"no"), OK[:20], b"garbage"],
    ids=["a second answer", "half a second answer", "garbage"],
)
async def test_what_follows_an_answer_reaches_nobody_and_ends_the_connection(surplus: bytes) -> None:
    async with upstream(saying(OK + surplus)) as pool:
        exchange = UpstreamExchange(pool)
        response = await begin(exchange)
        assert (response.headers, await response.read(10)) == ([(b"content-length", b"2")], b"ok")
        exchange.release()
        assert (pool.take(), pool._count) == (None, 0)
        assert await call(pool) == b"ok", "the next call gets its own answer, on a connection of its own"


async def test_an_answer_that_comes_unasked_on_an_idle_connection_is_nobodys() -> None:
    said = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await asyncio.sleep(0.05)
        writer.write(OK.replace(b"ok", b"no"))
        await writer.drain()
        said.set()

    async with upstream(handler) as pool:
        assert await call(pool) == b"ok"
        await asyncio.wait_for(said.wait(), 5)
        await eventually(lambda: pool._idle[0].closed)
        assert await call(pool) == b"ok"


async def test_a_connection_that_the_upstream_closed_is_not_used_and_a_lost_request_is_not_repeated() -> None:
    requests = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        await reader.readuntil(b"\r\n\r\n")
        requests += 1
        writer.write(OK)
        if requests == 2:
            writer.close()  # in its own time, as servers do with idle connections
        elif requests == 3:
            await reader.readuntil(b"\r\n\r\n")
            requests += 1
            writer.close()  # it may have run

    async with upstream(handler) as pool:
        requests = 1
        assert await call(pool) == b"ok"
        await eventually(lambda: pool._idle[0].closed)
        assert await call(pool) == b"ok"  # on another connection: not a byte had left
        assert pool._count == 1
        with pytest.raises(UpstreamFailed, match="closed the connection before it answered") as failed:
            await call(pool)
        assert failed.value.reason == "upstream_broke_off"
        assert requests == 4, "the request was sent once"


async def test_a_call_that_is_cancelled_leaves_no_connection_behind() -> None:
    async with upstream(silent, limit=3) as pool:
        for wait in (0.0, 0.0, 0.001, 0.01, 0.05):
            exchange = UpstreamExchange(pool)
            task = asyncio.create_task(begin(exchange))
            await asyncio.sleep(wait)
            task.cancel()
            await asyncio.wait([task])
            exchange.release()
        await eventually(lambda: pool._count == 0)


async def test_a_connection_that_comes_together_with_a_cancellation_is_let_go(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connect = Pool.connect

    async def connect_and_cancel(pool: Pool, timeout: float) -> Connection:
        connection = await connect(pool, timeout)
        asyncio.get_running_loop().call_soon(task.cancel)  # before the one who waits has woken up
        return connection

    async with upstream(silent) as pool:
        monkeypatch.setattr(Pool, "connect", connect_and_cancel)
        exchange = UpstreamExchange(pool)
        task = asyncio.create_task(begin(exchange))
        await asyncio.wait([task])
        assert task.cancelled()
        exchange.release()
        await eventually(lambda: pool._count == 0)


def test_a_url_becomes_a_target_that_fits_on_the_request_line() -> None:
    target = target_of("http://user@h.example:8000/a b/\u00fc?x=1&y=%20#there")
    assert target.path == b"/a%20b/%C3%BC?x=1&y=%20"
    assert (target.host_header, target.origin) == (b"h.example:8000", ("http", "h.example", 8000))
    assert target_of("https://h.example").path == b"/"
    with pytest.raises(ValueError, match="not an http"):
        target_of("ftp://h.example/")
