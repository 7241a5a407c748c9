"""How much one may send and have open, and what is said to who goes beyond it."""

import asyncio
import time

import httpx2
import pytest

from services.gateway.envelope import DEEPEST, Malformed, parse
from tests.conftest import eventually
from tests.unit.gateway.conftest import Exchange, House, token

VERSION = "io.modelcontextprotocol/protocolVersion"


@pytest.mark.parametrize(
    "given",
    [{f"X-{n}": "1" for n in range(101)}, {"X-Long": "x" * 33_000}, {"X" * 20_000: "x" * 13_000}],
    ids=["too many", "too long", "too long together"],
)
@pytest.mark.parametrize("method", ["POST", "GET", "DELETE"])
async def test_too_many_or_too_long_headers_are_refused_and_recorded(
    house: House, method: str, given: dict[str, str]
) -> None:
    headers = {"authorization": f"Bearer {token()}", "content-type": "application/json"} | given
    content = house.message("tools/call", {"name": "echo"}) if method == "POST" else None
    response = await house.client.request(method, f"{house.url}/mcp/demo", content=content, headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (431, -32600)
    assert response.json()["error"]["data"]["reason"] == "headers_too_large"
    assert not house.upstream.seen
    record = await house.record()
    assert (record["status"], record["reason"], record["http_status"]) == ("denied", "headers_too_large", 431)


async def test_as_many_headers_as_clients_and_proxies_send_pass(house: House) -> None:
    assert (await house.call(**{f"x_{n}": "1" * 300 for n in range(80)})).status_code == 200


def nested(depth: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    """A message whose arguments are nested, `depth` levels in all."""
    inner = opening * (depth - 3) + closing * (depth - 3)
    return b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"a":{"b":' + inner + b"}}}"


def test_nesting_is_taken_up_to_the_limit() -> None:
    assert parse(nested(DEEPEST)).method == "x"
    with pytest.raises(Malformed, match="deep"):
        parse(nested(DEEPEST + 1))
    with pytest.raises(Malformed, match="deep"):
        parse(nested(DEEPEST + 1, b'{"a":', b"}").replace(b'{"a":}', b'{"a":1}'))


def test_what_only_looks_deep_passes() -> None:
    body = b'{"jsonrpc":"2.0","id":1,"method":"x","params":{"wide":[' + b",".join([b"[]"] * 1000)
    assert parse(body + b'],"text":"' + b'[{\\"' * 1000 + b'"}}').method == "x"


BOMBS = {
    "opened and never closed": b"[" * 4_000_000,
    "objects": b'{"a":' * 800_000,
    "strings that end nowhere": b'"\\' * 2_000_000 + b"[" * 200,
    "quotes": b'"' * 4_000_000,
    "brackets between strings": b'"",[' * 1_000_000,
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_body_made_to_be_costly_is_refused_soon(name: str) -> None:
    body = BOMBS[name]
    began = time.process_time()
    with pytest.raises(Malformed):
        parse(body)
    assert time.process_time() - began < 5, "a search that starts again at each quote takes hours"


@pytest.mark.parametrize("kind", ["GET", "listen"])
async def test_one_person_cannot_take_all_the_streams_and_streams_take_no_places_of_calls(
    house: House, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr(house.gateway.running, "_streams", 3)
    monkeypatch.setattr(house.gateway.running, "_calls", 1)

    async def script(exchange: Exchange) -> None:
        if exchange.method == "GET" or exchange.message["method"] == "subscriptions/listen":
            await exchange.open_stream()
            await exchange.event(b": open\n\n")
            await exchange.until_gone()
        await exchange.result({})

    house.upstream.script = script
    open_one = getting if kind == "GET" else listening
    streams = [asyncio.create_task(open_one(house)) for _ in range(4)]
    await eventually(lambda: len(house.upstream.seen) == 3)
    (refused,) = (await asyncio.wait(streams, return_when=asyncio.FIRST_COMPLETED))[0]
    assert (refused.result().status_code, refused.result().headers["retry-after"]) == (429, "1")
    assert refused.result().json()["error"]["data"]["reason"] == "too_many_streams"
    assert (await house.call()).status_code == 200
    for stream in streams:
        stream.cancel()
    await eventually(lambda: not house.gateway.running._flights)
    assert not house.gateway.running._open, "nothing is counted for ever"


async def getting(house: House) -> httpx2.Response:
    headers = {"authorization": f"Bearer {token()}", "accept": "text/event-stream"}
    return await house.client.get(f"{house.url}/mcp/demo", headers=headers)


async def listening(house: House) -> httpx2.Response:
    params = {"_meta": {VERSION: "2026-07-28"}, "notifications": {"toolsListChanged": True}}
    body = house.message("subscriptions/listen", params)
    return await house.post(body, mcp_method="subscriptions/listen", mcp_protocol_version="2026-07-28")
