"""Streamable HTTP without sessions, for clients of 2026-07-28 (basic/transports/streamable-http).

One POST is one request with its own stream; a client that closes it has cancelled the request.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from libs.common.lifecycle import cancel
from services.gateway import messages, refusals
from services.gateway.asgi import Gone
from services.gateway.bridge.exchange import Exchange
from services.gateway.bridge.governed import Failed
from services.gateway.bridge.streams import Stream
from services.gateway.links.port import Emit
from services.gateway.messages import NotAMessage
from services.gateway.protocol import (
    HEADER_MISMATCH,
    METHOD_NOT_FOUND,
    MISSING_CAPABILITY,
    UNSUPPORTED_VERSION,
)
from services.gateway.sse import encoded

Ask: TypeAlias = Callable[[Emit], Awaitable[bytes]]

# basic/transports/streamable-http: what a JSON-RPC error is as an HTTP status. All others are 200.
_STATUS = {METHOD_NOT_FOUND: 404, HEADER_MISMATCH: 400, MISSING_CAPABILITY: 400, UNSUPPORTED_VERSION: 400}


async def answer(exchange: Exchange, ask: Ask, id: bytes, backlog: int) -> None:
    """Answer with what `ask` returns, as JSON, or behind what it emits as events.

    Raises what `ask` raises; once something was sent, that is `Failed` at the most. `id` is that of the
    request (raw JSON).
    """
    with contextlib.suppress(Gone):
        await exchange.while_there(_answer(exchange, ask, id, backlog))


async def _answer(exchange: Exchange, ask: Ask, id: bytes, backlog: int) -> None:
    notifications = Stream("", backlog)
    task = asyncio.ensure_future(ask(notifications.put))
    task.add_done_callback(lambda _: notifications.end())
    try:
        await _pass_on(exchange, notifications)
        if notifications.overflown:  # the client does not read: it does not get a whole answer
            return
        response = await _outcome(exchange, task, id)
    finally:
        await cancel(task)
    if exchange.started:
        await exchange.event(encoded(response))
        await exchange.end()
    else:
        await exchange.respond(_status(response), response)


async def _pass_on(exchange: Exchange, notifications: Stream) -> None:
    async with contextlib.aclosing(notifications.read()) as items:
        async for item in items:
            if not exchange.started:
                await exchange.open_events()
            if item is None:
                await exchange.keep_alive()
            else:
                await exchange.event(encoded(item.data))


async def _outcome(exchange: Exchange, task: "asyncio.Future[bytes]", id: bytes) -> bytes:
    """The response. Behind events, a failure is one too."""
    try:
        return await task
    except Failed as error:
        if not exchange.started:
            raise
        return refusals.body(error.refusal, id)


def _status(response: bytes) -> int:
    try:
        return _STATUS.get(messages.code_of(messages.read(response).error), 200)
    except NotAMessage:
        return 200
