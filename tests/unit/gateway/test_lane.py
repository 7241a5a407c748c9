"""The transparent lane: what crosses it, what does not, and what is recorded. Real sockets on both sides."""

import asyncio
import json

import pytest

from libs.common.control.entries import (
    Server,
)
from tests.unit.gateway.conftest import PUBLIC_URL, Exchange, House, token


async def test_a_call_is_forwarded_byte_for_byte_and_recorded(house: House) -> None:
    big = 2**70
    params = b'"params":{"name":"echo","arguments":{"n":%d},"later":1}' % big
    body = b'{ "jsonrpc":"2.0", "id":"x", "method":"tools/call",\n ' + params + b"}"
    answer = b'{"jsonrpc":"2.0","id":"x","result":{"content":[],"n":%d,"unknown":{"kept":true}}}' % big

    async def script(exchange: Exchange) -> None:
        await exchange.answer(answer, x_custom="kept")

    house.upstream.script = script
    response = await house.post(body)

    assert (response.status_code, response.content) == (200, answer)
    assert response.headers["x-custom"] == "kept"
    assert house.upstream.seen[0].body == body
    record = await house.record()
    assert (record["status"], record["reason"], record["tool"]) == ("ok", "allowed", "echo")
    assert (record["user"], record["email"], record["client_name"]) == (
        "alice",
        "alice@x.example",
        "Test client",
    )
    assert json.loads(record["input"])["arguments"] == {"n": big}
    assert json.loads(record["output"])["n"] == big
    assert record["revision"] > 0
    assert record["duration_us"] >= record["first_byte_us"] > 0


async def test_the_upstream_never_sees_the_callers_token_cookie_or_origin(house: House) -> None:
    bearer = token()
    await house.call(bearer=bearer, cookie="lockgate=abc", origin=PUBLIC_URL, x_forwarded_for="1.2.3.4")
    (seen,) = house.upstream.seen
    assert bearer not in str(seen.headers)
    assert not {"authorization", "cookie", "origin", "x-forwarded-for"} & set(seen.headers)


async def test_the_caller_never_sees_the_upstreams_cookies_or_challenges(house: House) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.result(
            {}, set_cookie="a=b", www_authenticate="Bearer", access_control_allow_origin="*"
        )

    house.upstream.script = script
    response = await house.call()
    assert not {"set-cookie", "www-authenticate", "access-control-allow-origin"} & set(response.headers)


async def test_events_pass_as_they_come(house: House) -> None:
    step = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        await exchange.open_stream()
        await exchange.event(b"data: 1\n\n")
        await step.wait()
        await exchange.event(b'data: {"jsonrpc":"2.0","id":1,"result":{"isError":true}}\n\n', last=True)

    house.upstream.script = script
    headers = {"authorization": f"Bearer {token()}"}
    body = house.message("tools/call", {"name": "echo"})
    async with house.client.stream(
        "POST", f"{house.url}/mcp/demo", content=body, headers=headers
    ) as response:
        chunks = response.aiter_raw()
        assert await anext(chunks) == b"data: 1\n\n"  # before the upstream has gone on
        step.set()
        rest = b"".join([chunk async for chunk in chunks])
    assert rest.startswith(b"data: {")
    record = await house.record()
    assert (record["status"], record["output"]) == ("error", '{"isError":true}')


async def test_a_client_that_goes_away_cancels_the_call_upstream(house: House) -> None:
    started = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        started.set()
        await exchange.until_gone()

    house.upstream.script = script
    call = asyncio.create_task(house.call())
    await asyncio.wait_for(started.wait(), 5)
    call.cancel()
    await asyncio.wait_for(house.upstream.seen[0].gone.wait(), 5)
    record = await house.record()
    assert (record["status"], record["reason"]) == ("cancelled", "cancelled")


async def test_a_client_that_leaves_with_its_answer_has_not_cancelled_anything(house: House) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.open_stream()
        await exchange.event(b'data: {"jsonrpc":"2.0","id":1,"result":{"content":[]}}\n\n')
        await exchange.until_gone()

    house.upstream.script = script
    headers = {"authorization": f"Bearer {token()}"}
    body = house.message("tools/call", {"name": "echo"})
    async with house.client.stream(
        "POST", f"{house.url}/mcp/demo", content=body, headers=headers
    ) as response:
        await anext(response.aiter_raw())
    record = await house.record()
    assert (record["status"], record["reason"], record["output"]) == ("ok", "allowed", '{"content":[]}')


async def test_session_ids_are_bound_to_their_user_and_server(house: House) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.result({}, mcp_session_id="upstream-session")

    house.upstream.script = script
    session = (await house.post(house.message("initialize", {}))).headers["mcp-session-id"]
    assert session != "upstream-session"

    assert (await house.call(mcp_session_id=session)).status_code == 200
    assert house.upstream.seen[-1].headers["mcp-session-id"] == "upstream-session"

    for bearer, given in [(token("bob"), session), (token(), "upstream-session"), (token(), session[:-1])]:
        response = await house.call(bearer=bearer, mcp_session_id=given)
        assert response.status_code == 404
        assert response.json()["error"]["data"]["reason"] == "session_foreign"
    assert len(house.upstream.seen) == 2


async def test_get_and_delete_of_a_session_pass(house: House) -> None:
    async def script(exchange: Exchange) -> None:
        if exchange.method == "GET":
            await exchange.open_stream()
            await exchange.event(b"id: 1\ndata: {}\n\n", last=True)
        elif exchange.method == "DELETE":
            await exchange.answer(b"", 200)
        else:
            await exchange.result({}, mcp_session_id="s")

    house.upstream.script = script
    session = (await house.post(house.message("initialize", {}))).headers["mcp-session-id"]
    headers = {"authorization": f"Bearer {token()}", "mcp-session-id": session}
    got = await house.client.get(f"{house.url}/mcp/demo", headers=headers | {"last-event-id": "0"})
    assert got.content == b"id: 1\ndata: {}\n\n"
    assert house.upstream.seen[-1].headers["last-event-id"] == "0"
    assert (await house.client.delete(f"{house.url}/mcp/demo", headers=headers)).status_code == 200
    await house.record(3)
    assert [record["method"] for record in house.records()] == ["initialize", "GET", "DELETE"]


async def test_an_answer_to_a_request_of_the_server_passes(house: House) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.answer(b"", 202)

    house.upstream.script = script
    body = b'{"jsonrpc":"2.0","id":9,"result":{"roots":[]}}'
    assert (await house.post(body)).status_code == 202
    assert house.upstream.seen[0].body == body
    assert (await house.record())["method"] == "response"


async def test_an_error_of_the_upstream_passes_as_it_is(house: House) -> None:
    """A dual-era client falls back by the upstream's own 400 body."""
    body = b'{"jsonrpc":"2.0","id":1,"error":{"code":-32000,"message":"Bad Request: no session"}}'

    async def script(exchange: Exchange) -> None:
        await exchange.answer(body, 400)

    house.upstream.script = script
    response = await house.call()
    assert (response.status_code, response.content) == (400, body)
    record = await house.record()
    assert (record["status"], record["http_status"], record["error_code"]) == ("error", 400, -32000)


async def test_an_upstream_that_is_down_is_named_with_the_reason(house: House) -> None:
    await house.put(Server(version=2, slug="demo", name="Demo", url="http://127.0.0.1:9/mcp"))
    response = await house.call()
    assert response.status_code == 502
    assert response.json()["error"]["message"] == "Lockgate: demo: it refuses connections"
    record = await house.record()
    assert (record["status"], record["reason"]) == ("failed", "upstream_unreachable")
    assert record["duration_us"] > 0


async def test_an_upstream_that_is_slow_is_given_up_in_time(house: House) -> None:
    await house.put(Server(version=2, slug="demo", name="Demo", url=house.upstream.url, response_timeout=0.2))

    async def script(exchange: Exchange) -> None:
        await exchange.until_gone()

    house.upstream.script = script
    response = await house.call()
    assert response.status_code == 504
    assert "did not answer within 0.2 s" in response.json()["error"]["message"]
    assert (await house.record())["reason"] == "upstream_timeout"
    await asyncio.wait_for(house.upstream.seen[0].gone.wait(), 5)


LIES = {
    b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\n{": ("upstream_broke_off", None),
    b"SSH-2.0-OpenSSH_9.2\r\n": ("upstream_bad_answer", 502),
    b"": ("upstream_broke_off", 502),
    b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1/\r\ncontent-length: 0\r\n\r\n": (
        "upstream_bad_answer",
        502,
    ),
    b"HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n": ("upstream_unauthorized", 502),
    b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 1\r\n\r\nx": ("upstream_bad_answer", 502),
    b"HTTP/1.1 200 OK\r\nx: " + b"a" * 100_000 + b"\r\n\r\n": ("upstream_bad_answer", 502),
}


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie[:40].decode())
async def test_an_upstream_that_lies_is_found_out_and_recorded(house: House, lie: bytes) -> None:
    reason, status = LIES[lie]

    async def liar(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(lie)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(liar, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    await house.put(Server(version=2, slug="demo", name="Demo", url=f"http://127.0.0.1:{port}/mcp"))
    if status is None:
        with pytest.raises(Exception, match=r"peer closed|disconnected|incomplete"):
            await house.call()
    else:
        response = await house.call()
        assert response.status_code == status
        assert response.json()["error"]["message"].startswith("Lockgate: demo: ")
    record = await house.record()
    assert (record["status"], record["reason"]) == ("failed", reason)
    server.close()


async def test_connections_to_the_upstream_are_used_again(house: House) -> None:
    for _ in range(20):
        assert (await house.call()).status_code == 200
    pool = next(iter(house.gateway.pools._pools.values()))
    assert pool._count == 1
