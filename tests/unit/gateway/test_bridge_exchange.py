"""One exchange with a client of the bridged lane."""

from typing import Any

from libs.common.tokens import Claims
from services.gateway.bridge.exchange import Exchange
from services.gateway.ticket import Caller


async def test_a_stream_that_is_ended_from_two_sides_ends_once() -> None:
    """Its writer notices that it is over, and so does who ended it: ASGI servers take one end only."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def gone() -> None:
        raise AssertionError("nobody asks")

    claims = Claims("mia", "grant", "client", "Client", ("a",), 0, 1)
    exchange = Exchange("GET", "http", "demo", Caller(claims), [], b"", send, gone)
    await exchange.open_events()
    await exchange.end()
    await exchange.end()
    bodies = [message for message in sent if message["type"] == "http.response.body"]
    assert bodies == [{"type": "http.response.body", "body": b""}]
