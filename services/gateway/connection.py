"""One HTTP/1.1 connection to an upstream, on `asyncio.Protocol` and httptools: one exchange at a time."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import cast

import httptools

Header = tuple[bytes, bytes]

HIGH_WATER = 256 * 1024  # bytes held of an answer before reading from the upstream pauses
HEADER_LIMIT = 64 * 1024


class UpstreamFailed(Exception):
    """No usable answer. `reason` is a reason id, `detail` a sentence that names what happened."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


class Connection(asyncio.Protocol):
    """One connection, carrying one exchange at a time."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[Header] = []
        self.reusable = False  # the exchange is over and the connection may carry another
        self.idle_since = 0.0
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._failure: UpstreamFailed | None = None
        self._chunks: deque[bytes] = deque()
        self._held = 0
        self._paused = False
        self._head_done = self._done = False
        self._header_bytes = 0
        self._early = False
        self._delimited = False  # the answer says where it ends, other than by closing
        self._waiter: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None

    # -- the exchange -----------------------------------------------------------------------------

    async def send(self, head: bytes, body: bytes) -> None:
        """Begin an exchange."""
        self.status, self.headers, self.reusable = 0, [], False
        self._parser = httptools.HttpResponseParser(self)
        self._chunks.clear()
        self._held = self._header_bytes = 0
        self._head_done = self._done = self._delimited = self._early = False
        if self._transport is None:
            raise self._failure or UpstreamFailed("upstream_broke_off", "it closed the connection at once")
        self._transport.write(head + body if len(body) < HIGH_WATER else head)
        if len(body) >= HIGH_WATER:
            self._transport.write(body)
            while self._drained is not None and not self._failure and not self._head_done:
                await self._drained

    async def head(self) -> None:
        """Wait for status and headers. Raises `UpstreamFailed`."""
        while not self._head_done:
            await self._more()

    async def body(self) -> AsyncIterator[bytes]:
        """The body in chunks as they come. Raises `UpstreamFailed` if it breaks off."""
        while True:
            while self._chunks:
                chunk = self._chunks.popleft()
                self._held -= len(chunk)
                if self._paused and self._held < HIGH_WATER // 2:
                    self._resume()
                yield chunk
            if self._done:
                return
            await self._more()

    def abort(self, failure: UpstreamFailed) -> None:
        """End the exchange at once; whoever waits for it gets `failure`, and nothing that is still held."""
        self._chunks.clear()
        self._done = False
        self._fail(failure)
        if self._transport:
            self._transport.abort()

    def close(self) -> None:
        self.reusable = False
        if self._transport:
            self._transport.close()

    @property
    def closed(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    async def _more(self) -> None:
        if self._failure:
            raise self._failure
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
        if self._failure and not self._chunks:
            raise self._failure

    def _wake(self) -> None:
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, failure: UpstreamFailed) -> None:
        self._failure = self._failure or failure
        self.reusable = False
        self._wake()
        self.resume_writing()

    def _resume(self) -> None:
        self._paused = False
        if self._transport and not self._transport.is_closing():
            self._transport.resume_reading()

    # -- asyncio.Protocol -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        if self._parser is None or self._done:  # an answer to nothing
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            detail = f"what came is not an HTTP answer to this request: {error}"
            self.abort(UpstreamFailed("upstream_bad_answer", detail))

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.resume_writing()
        if self._failure:
            return
        if self._head_done and not self._done and not self._delimited and exc is None:
            self._done = True  # delimited by the close (RFC 9112, section 6.3)
            self.reusable = False
            self._wake()
        elif not self._done:
            when = "in the middle of its answer" if self._head_done else "before it answered"
            self._fail(UpstreamFailed("upstream_broke_off", f"it closed the connection {when}"))

    def pause_writing(self) -> None:
        self._drained = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        drained, self._drained = self._drained, None
        if drained and not drained.done():
            drained.set_result(None)

    # -- httptools --------------------------------------------------------------------------------

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value)
        if self._header_bytes > HEADER_LIMIT:
            raise ValueError("the headers are too long")
        name = name.lower()
        if name in {b"content-length", b"transfer-encoding"}:
            self._delimited = True
        self.headers.append((name, value.strip()))

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        self.status = self._parser.get_status_code()
        if self.status < 200:  # an interim answer (RFC 9110, section 15.2)
            self.headers, self._header_bytes = [], 0
            return
        self._head_done = True
        self._early = self._drained is not None  # it answered before it had the whole request
        self.resume_writing()
        self._wake()

    def on_body(self, chunk: bytes) -> None:
        self._chunks.append(chunk)
        self._held += len(chunk)
        if self._held > HIGH_WATER and not self._paused and self._transport:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def on_message_complete(self) -> None:
        assert self._parser is not None
        if self.status < 200:
            return
        self._done = True
        self.reusable = self._parser.should_keep_alive() and not self._early and not self.closed
        self._wake()
