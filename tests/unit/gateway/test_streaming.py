"""Long answers and long requests through a real replica: nothing of them piles up in its memory."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import httpx2
import pytest

from libs.common.control.entries import Server
from tests.conftest import Nats, eventually
from tests.unit.gateway.conftest import Exchange, House, token
from tests.unit.gateway.replica_process import SECRET, Replica, Source, call, replica

MB = 1_000_000
SIZE = 100 * MB
ALLOWED = 30 * MB  # of growth
PIECE = b"0123456789abcdef" * 4096  # 64 KiB

JSON = b"content-type: application/json\r\n"
EVENTS = b"content-type: text/event-stream\r\n"
RESULT = b'{"jsonrpc":"2.0","id":1,"result":{"text":"'


@pytest.fixture
async def gateway(nats: Nats, tmp_path: Path) -> AsyncIterator[Replica]:
    async with replica(nats, tmp_path) as made:
        yield made


async def one_body() -> Source:
    yield RESULT
    for _ in range(SIZE // len(PIECE)):
        yield PIECE
    yield b'"}}'


async def one_body_that_repeats_the_credential() -> Source:
    yield RESULT
    for _ in range(SIZE // len(PIECE)):
        yield PIECE[len(SECRET) :] + SECRET.encode()
    yield b'"}}'


async def many_events() -> Source:
    event = (
        b'event: message\ndata: {"jsonrpc":"2.0","method":"notifications/progress","params":{"n":"%b"}}\n\n'
    )
    event %= PIECE[:8000]
    for _ in range(SIZE // len(event)):
        yield event
    yield b'data: {"jsonrpc":"2.0","id":1,"result":{}}\n\n'


async def one_event() -> Source:
    yield b"event: message\ndata: "
    async for piece in one_body():
        yield piece
    yield b"\n\n"


ANSWERS = {
    "one body": (JSON, one_body),
    "many events": (EVENTS, many_events),
    "one event": (EVENTS, one_event),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_a_long_answer_passes_unchanged_and_with_flat_memory(gateway: Replica, name: str) -> None:
    gateway.upstream.answers(*ANSWERS[name])
    before = gateway.memory
    gateway.forget_peak()
    answer = await gateway.ask(call("long"))
    size, digest = await answer.digest()
    assert size == gateway.upstream.sent >= 0.99 * SIZE
    assert digest == gateway.upstream.digest
    assert gateway.peak - before < ALLOWED
    answer.close()


async def test_a_long_answer_is_redacted_with_flat_memory(gateway: Replica) -> None:
    gateway.upstream.answers(JSON, one_body_that_repeats_the_credential)
    before = gateway.memory
    gateway.forget_peak()
    answer = await gateway.ask(call("long"), "keyed")
    expected = hashlib.sha256()
    async for piece in one_body_that_repeats_the_credential():
        expected.update(piece.replace(SECRET.encode(), b"*" * len(SECRET)))
    size, digest = await answer.digest()
    assert (size, digest) == (gateway.upstream.sent, expected.hexdigest())
    assert gateway.peak - before < ALLOWED
    answer.close()


@pytest.mark.parametrize("name", ANSWERS)
async def test_a_client_that_does_not_read_holds_the_upstream_back(gateway: Replica, name: str) -> None:
    gateway.upstream.answers(*ANSWERS[name])
    before = gateway.memory
    gateway.forget_peak()
    answer = await gateway.ask(call("long"))
    await come_to_rest(lambda: gateway.upstream.sent)
    assert gateway.upstream.sent < ALLOWED, "what the kernels of both sides hold"
    assert (await answer.digest())[1] == gateway.upstream.digest, "and nothing is lost by waiting"
    assert gateway.peak - before < ALLOWED
    answer.close()


async def come_to_rest(measure: Callable[[], int]) -> None:
    """Wait until `measure` has not changed for a while."""
    async with asyncio.timeout(30):
        before = -1
        while measure() != before:
            before = measure()
            await asyncio.sleep(0.5)


async def test_as_large_a_request_as_is_allowed_arrives_unchanged(gateway: Replica) -> None:
    gateway.upstream.answers(JSON, one_body)
    frame = len(call("upload", b'{"data":""}'))
    body = call("upload", b'{"data":"' + b"x" * (4 * 1024 * 1024 - frame) + b'"}')
    assert len(body) == 4 * 1024 * 1024
    answer = await gateway.ask(body)
    assert answer.status == 200
    assert gateway.upstream.received == len(body)
    assert gateway.upstream.request_digest == hashlib.sha256(body).hexdigest()
    answer.close()


async def test_a_request_that_announces_more_is_refused_before_it_comes(gateway: Replica) -> None:
    gateway.upstream.answers(JSON, one_body)
    async with asyncio.timeout(5):
        answer = await gateway.ask(b'{"jsonrpc"', announced=4 * 1024 * 1024 + 1)
    assert answer.status == 413
    assert gateway.upstream.received == 0
    answer.close()


async def test_a_request_that_grows_beyond_is_refused_on_the_way(gateway: Replica) -> None:
    before, sent = gateway.memory, 0
    gateway.forget_peak()
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    bearer = token()
    writer.write(
        b"POST /mcp/demo HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %b\r\n"
        b"content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n" % bearer.encode()
    )
    answered = asyncio.create_task(reader.readuntil(b"\r\n\r\n"))
    while not answered.done() and sent < SIZE:
        writer.write(b"%x\r\n%b\r\n" % (len(PIECE), PIECE))
        await writer.drain()
        sent += len(PIECE)
        await asyncio.sleep(0)
    assert b" 413 " in await answered
    assert sent < ALLOWED
    assert gateway.peak - before < ALLOWED
    writer.transport.abort()


# -- upstreams that stop -----------------------------------------------------------------------------


async def test_an_answer_that_stops_in_the_middle_breaks_off_after_the_servers_idle_timeout(
    house: House,
) -> None:
    url = house.upstream.url
    await house.put(Server(version=2, slug="demo", name="Demo", url=url, idle_timeout=0.2))

    async def script(exchange: Exchange) -> None:
        await exchange.open_stream(content_type="application/json")
        await exchange.event(b'{"jsonrpc":')
        await exchange.until_gone()

    house.upstream.script = script
    async with asyncio.timeout(5):
        with pytest.raises(httpx2.RemoteProtocolError):
            await house.call()
    record = await house.record()
    assert (record["status"], record["reason"]) == ("failed", "upstream_timeout")
    assert "sent nothing for 0.2 s in the middle of its answer" in record["detail"]
    await asyncio.wait_for(house.upstream.seen[0].gone.wait(), 5)


async def test_open_streams_leave_connections_to_calls(house: House) -> None:
    house.gateway.pools._limit = 4  # of which streams may have three

    async def script(exchange: Exchange) -> None:
        if exchange.method == "GET" or exchange.message["method"] == "subscriptions/listen":
            await exchange.open_stream()
            await exchange.event(b": open\n\n")
            await exchange.until_gone()
        else:
            await exchange.result({})

    house.upstream.script = script
    listen = house.message("subscriptions/listen", {})
    headers = {"authorization": f"Bearer {token()}", "content-type": "application/json"}
    async with AsyncExitStack() as stack:
        for method, body in [("GET", b""), ("POST", listen), ("GET", b"")]:
            stream = house.client.stream(method, f"{house.url}/mcp/demo", content=body, headers=headers)
            assert (await stack.enter_async_context(stream)).status_code == 200
        refused = await house.post(listen, bearer=token("bob"))
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert refused.json()["error"]["data"]["reason"] == "upstream_busy"
        assert (await house.call(bearer=token("bob"))).status_code == 200


# -- clients that leave ----------------------------------------------------------------------------


@pytest.mark.parametrize("content_type", ["application/json", "text/event-stream"])
async def test_a_client_that_leaves_in_mid_answer_cancels_the_call_upstream(
    house: House, content_type: str
) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.open_stream(content_type=content_type)
        await exchange.event(b": begun\n\n")
        await exchange.until_gone()

    house.upstream.script = script
    headers = {"authorization": f"Bearer {token()}"}
    body = house.message("tools/call", {"name": "echo"})
    async with house.client.stream(
        "POST", f"{house.url}/mcp/demo", content=body, headers=headers
    ) as response:
        assert await anext(response.aiter_raw()) == b": begun\n\n"
    await asyncio.wait_for(house.upstream.seen[0].gone.wait(), 5)
    record = await house.record()
    assert (record["status"], record["reason"]) == ("cancelled", "cancelled")
    pool = next(iter(house.gateway.pools._pools.values()))
    await eventually(lambda: pool._count == 0)


async def test_a_client_that_leaves_while_the_upstream_is_held_back_cancels_the_call(
    gateway: Replica,
) -> None:
    gateway.upstream.answers(JSON, one_body)
    answer = await gateway.ask(call("long"))
    await come_to_rest(lambda: gateway.upstream.sent)
    answer.close()
    await asyncio.wait_for(gateway.upstream.gone.wait(), 5)
