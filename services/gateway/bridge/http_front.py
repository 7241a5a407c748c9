"""Streamable HTTP with sessions, for clients of 2025-03-26 to 2025-11-25 (basic/transports).

Each request has a stream of its own, and the session one more for what belongs to no request, read by GET.
Events are numbered, so that a client whose connection broke can go on where it was.
"""

import contextlib
from contextlib import ExitStack

from libs.common.clock import elapsed
from libs.common.control.entries import Server
from services.gateway import messages
from services.gateway.asgi import Gone
from services.gateway.bridge.conversations import Conversation, Key, Outlet, key_of
from services.gateway.bridge.exchange import Exchange
from services.gateway.bridge.streams import Stream
from services.gateway.connection import UpstreamFailed
from services.gateway.envelope import Envelope
from services.gateway.messages import NotAMessage
from services.gateway.sse import encoded
from services.gateway.ticket import Caller

SESSION = b"mcp-session-id"
MAIN = "0"
RESUMABLE = 32  # streams of answered requests that are kept for a client that comes back


class HostedHttpSession(Outlet):
    """One client's session: its streams, and which of them a message goes to."""

    def __init__(self, id: bytes, caller: Caller, backlog: int) -> None:
        self.id, self.caller = id, caller
        self.server: Server | None = None
        self.conversation: Conversation | None = None
        self.landing = ExitStack()  # takes the session out of what is in flight
        self.initialized = False  # the server accepted the client
        self._backlog = backlog
        self._main = Stream(MAIN, backlog)
        self._streams: dict[str, Stream] = {MAIN: self._main}
        self._asked: dict[Key, Stream] = {}
        self._progress: dict[Key, Stream] = {}
        self._count = 0
        self._used = elapsed()

    # -- streams ----------------------------------------------------------------------------------

    def waits_for(self, envelope: Envelope) -> bool:
        """Whether a request with the same id waits for its answer."""
        return key_of(envelope.id) in self._asked

    def stream_for(self, envelope: Envelope) -> Stream:
        """A new stream for a request."""
        self._count += 1
        stream = Stream(str(self._count), self._backlog)
        self._streams[stream.name] = self._asked[key_of(envelope.id)] = stream
        if token := _progress_token(envelope.params):
            self._progress[key_of(token)] = stream
        self._forget_old()
        return stream

    def forget(self, stream: Stream) -> None:
        """The request was refused: nothing will come."""
        stream.end()
        self._streams.pop(stream.name, None)
        self._unlist(stream)

    def find(self, last_event: bytes) -> tuple[Stream, int] | None:
        """The stream and position behind an event id; None if it is not known here."""
        name, _, number = last_event.decode("latin-1").partition("-")
        stream = self._streams.get(name)
        return (stream, int(number)) if stream and number.isdecimal() and len(number) < 10 else None

    @property
    def main(self) -> Stream:
        return self._main

    def _forget_old(self) -> None:
        """Keep of the streams that are done the newest, as many and as much as a client may come back for."""
        done = [s for s in self._streams.values() if s.ended and not s.reading and s is not self._main]
        size = 0
        for count, stream in enumerate(reversed(done), 1):
            size += stream.size
            if count > RESUMABLE or (count > 1 and size > self._backlog):
                del self._streams[stream.name]

    def _unlist(self, stream: Stream) -> None:
        for table in (self._asked, self._progress):
            for key in [key for key, listed in table.items() if listed is stream]:
                del table[key]

    # -- an outlet --------------------------------------------------------------------------------

    def answer(self, key: Key, message: bytes, status: int = 200) -> None:
        if stream := self._asked.get(key):
            self.initialized = self.initialized or bool(messages.read(message).result)
            stream.put(message, status, last=True)
            self._unlist(stream)
            self._forget_old()

    def drop(self, key: Key) -> None:
        if stream := self._asked.get(key):
            stream.end()
            self._unlist(stream)

    def message(self, message: bytes) -> None:
        self._stream_of(message).put(message)

    def _stream_of(self, message: bytes) -> Stream:
        """Where a message of the server goes: a pipe does not tell to which request it belongs.

        That of its progress token; else the only one that is open for a request; else that of the session. If
        that is not read, the newest for a request; if there is none, what comes waits.
        """
        try:
            token = messages.members(messages.read(message).params).get("progressToken")
        except NotAMessage:
            token = None
        if token is not None and (stream := self._progress.get(key_of(bytes(token)))):
            return stream
        open_ = [stream for stream in self._asked.values() if stream.attached]
        if len(open_) == 1 or (open_ and not self._main.attached):
            return open_[-1]
        return self._main

    def end(self) -> None:
        for stream in self._streams.values():
            stream.end()

    # -- hosted -----------------------------------------------------------------------------------

    def touch(self) -> None:
        self._used = elapsed()

    @property
    def idle_since(self) -> float | None:
        return None if any(stream.attached for stream in self._streams.values()) else self._used

    @property
    def overflown(self) -> bool:
        return any(stream.overflown for stream in self._streams.values())

    async def close(self, failure: UpstreamFailed) -> None:
        self.landing.close()
        self.end()
        if self.conversation:
            await self.conversation.close(failure)


def _progress_token(params: bytes) -> bytes:
    try:
        meta = messages.members(bytes(messages.members(params).get("_meta", b"")))
    except NotAMessage:
        return b""
    return bytes(meta.get("progressToken", b""))


async def answer(exchange: Exchange, session: HostedHttpSession, stream: Stream) -> None:
    """Answer a POST with what comes on the request's `stream`: JSON if that is only the response.

    A client that goes away has not cancelled anything; it may come back for the rest.
    """
    with contextlib.suppress(Gone):
        await exchange.while_there(_answer(exchange, session, stream))
    session.touch()


async def listen(exchange: Exchange, session: HostedHttpSession, stream: Stream, after: int | None) -> None:
    """Answer a GET with what comes on `stream` after the event `after`."""
    await exchange.open_events([(SESSION, session.id)])
    with contextlib.suppress(Gone):
        await exchange.while_there(_events(exchange, session, stream, after))
    session.touch()


async def _answer(exchange: Exchange, session: HostedHttpSession, stream: Stream) -> None:
    async with contextlib.aclosing(stream.read()) as items:
        first = await anext(items, None)
        if first and stream.is_last(first):
            await exchange.respond(first.status, first.data, [(SESSION, session.id)])
            return
    await exchange.open_events([(SESSION, session.id)])
    await _events(exchange, session, stream, 0)


async def _events(exchange: Exchange, session: HostedHttpSession, stream: Stream, after: int | None) -> None:
    async with contextlib.aclosing(stream.read(after)) as items:
        async for item in items:
            if item is None:
                await exchange.keep_alive()
            else:
                id = f"{stream.name}-{item.number}".encode()
                await exchange.event(encoded(item.data, id=id))
    await exchange.end()
