"""HTTP+SSE, for clients of 2024-11-05 (basic/transports): one stream, opened by GET, for all answers.

Its first event says where to POST messages: the same path, with the session in the query.
"""

import contextlib
from urllib.parse import parse_qs, quote

from libs.common.control.entries import Server
from services.gateway.asgi import Gone, Scope
from services.gateway.bridge.conversations import Conversation, Key, Outlet
from services.gateway.bridge.exchange import Exchange
from services.gateway.bridge.streams import Stream
from services.gateway.connection import UpstreamFailed
from services.gateway.metadata import path_of
from services.gateway.sse import encoded
from services.gateway.ticket import Caller

PARAMETER = "sessionId"


class HostedSseSession(Outlet):
    """One client's session, which lives as long as its stream."""

    idle_since: float | None = None

    def __init__(self, id: bytes, caller: Caller, backlog: int) -> None:
        self.id, self.caller = id, caller
        self.server: Server | None = None
        self.conversation: Conversation | None = None
        self.stream = Stream("", backlog)

    def answer(self, key: Key, message: bytes, status: int = 200) -> None:
        self.stream.put(message)

    def drop(self, key: Key) -> None:
        """Nothing to do: all that comes shares one stream."""

    def message(self, message: bytes) -> None:
        self.stream.put(message)

    def end(self) -> None:
        self.stream.end()

    @property
    def overflown(self) -> bool:
        return self.stream.overflown

    async def close(self, failure: UpstreamFailed) -> None:
        self.end()
        if self.conversation:
            await self.conversation.close(failure)


def session_of(scope: Scope) -> bytes:
    """The session that the query of a request names; empty if it names none."""
    query: bytes = scope.get("query_string", b"")
    return parse_qs(query.decode("ascii", "replace")).get(PARAMETER, [""])[0].encode()


def endpoint(server: str, session: bytes) -> bytes:
    """Where the messages of a session are posted to, as the first event says it."""
    return f"{path_of(server, sse=True)}?{PARAMETER}={quote(session.decode())}".encode()


async def stream(exchange: Exchange, session: HostedSseSession) -> None:
    """Answer a GET with the stream of `session`, until either side ends it."""
    await exchange.open_events()
    await exchange.event(encoded(endpoint(exchange.server, session.id), event=b"endpoint"))
    with contextlib.suppress(Gone):
        await exchange.while_there(_events(exchange, session.stream))


async def _events(exchange: Exchange, stream: Stream) -> None:
    async with contextlib.aclosing(stream.read()) as items:
        async for item in items:
            if item is None:
                await exchange.keep_alive()
            else:
                await exchange.event(encoded(item.data))
    await exchange.end()
