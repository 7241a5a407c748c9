"""Nobody makes the server hold a head without an end."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from starlette.types import Receive, Scope, Send

from services.embedded.heads import HEAD_LIMIT, BoundedHeads
from tests.asgi import serve
from tests.conftest import free_port


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Says how long the body was."""
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message.get("body", b"")), message.get("more_body", False)
    body = b"%d" % size
    headers = [(b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
async def port() -> AsyncIterator[int]:
    async with AsyncExitStack() as stack:
        await serve(app, port := free_port(), stack, http=BoundedHeads, lifespan="off")
        yield port


ENDLESS = {
    "one header": b"GET / HTTP/1.1\r\nX: " + b"a" * 2 * HEAD_LIMIT,
    "one name": b"GET / HTTP/1.1\r\n" + b"a" * 2 * HEAD_LIMIT,
    "many headers": b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * (HEAD_LIMIT // 3),
    "a path": b"GET /" + b"a" * 2 * HEAD_LIMIT,
    "after a request": b"GET / HTTP/1.1\r\n\r\n" + b"GET / HTTP/1.1\r\nX: " + b"a" * 2 * HEAD_LIMIT,
}


@pytest.mark.parametrize("name", ENDLESS)
async def test_a_head_without_an_end_is_given_up(port: int, name: str) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(10):
        try:
            for start in range(0, len(ENDLESS[name]), 16384):
                writer.write(ENDLESS[name][start : start + 16384])
                await writer.drain()
                await asyncio.sleep(0)
            answer = await reader.read()
        except ConnectionError:
            return  # it closed while we were writing
    assert b"HTTP/1.1 431 " in answer or b"HTTP/1.1 400 " in answer
    writer.close()


async def test_long_bodies_and_many_requests_on_a_connection_do_not_count(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    async with asyncio.timeout(10):
        for size in (0, 10 * HEAD_LIMIT, 5, 3 * HEAD_LIMIT):
            head = (
                b"POST / HTTP/1.1\r\nX: "
                + b"a" * (HEAD_LIMIT // 4)
                + b"\r\ncontent-length: %d\r\n\r\n" % size
            )
            for start in range(0, len(head), 1000):  # in pieces
                writer.write(head[start : start + 1000])
                await asyncio.sleep(0)
            writer.write(b"x" * size)
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert await reader.readexactly(len(str(size))) == b"%d" % size
    writer.close()
