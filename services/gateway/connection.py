"""One HTTP/1.1 connection to an upstream, on `asyncio.Protocol` and httptools: one exchange at a time.

Not for HEAD, whose answers have no body although they name its length.
"""

import asyncio
import math
import re
from collections import deque
from collections.abc import AsyncIterator
from typing import cast

import httptools

Header = tuple[bytes, bytes]

HIGH_WATER = 256 * 1024  # bytes held of an answer before reading from the upstream pauses
PIECE = 64 * 1024  # of a large request, written when the one before it has left
HEADER_LIMIT = 64 * 1024  # bytes
HEADER_COUNT = 200
IDLE_FOR = 3.0  # seconds for which a connection is kept; common servers close theirs after five

_KEPT_FOR = re.compile(rb"timeout\s*=\s*(\d{1,6})")
_HEADERS_TOO_LONG = f"the headers are longer than {HEADER_LIMIT} bytes"


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
        self.idle_for = IDLE_FOR
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._failure: UpstreamFailed | None = None
        self._chunks: deque[bytes] = deque()
        self._held = 0
        self._paused = False
        self._sending = self._head_done = self._done = False
        self._header_bytes = self._header_count = 0
        self._bare = 0  # bytes since something came of them: a head or a trailer without an end
        self._early = False
        self._delimited = False  # the answer says where it ends, other than by closing
        self._waiter: asyncio.Future[None] | None = None
        self._drained: asyncio.Future[None] | None = None
        self._response_timeout = self._idle_timeout = math.inf
        self._deadline = math.inf  # of the loop's clock, for what is awaited of the upstream now
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf

    # -- the exchange -----------------------------------------------------------------------------

    async def send(self, head: bytes, body: bytes, response_timeout: float, idle_timeout: float) -> None:
        """Begin an exchange. Returns when the request has left, or the answer comes before that.

        The upstream must take some of the request every `idle_timeout` seconds, then begin its answer
        within `response_timeout`, then send something every `idle_timeout`, unless it sends events.
        """
        self.status, self.headers, self.reusable = 0, [], False
        self._parser = httptools.HttpResponseParser(self)
        self._chunks.clear()
        self._held = self._header_bytes = self._header_count = self._bare = 0
        self._head_done = self._done = self._delimited = self._early = False
        self._response_timeout, self._idle_timeout = response_timeout, idle_timeout
        if self._transport is None:
            raise self._failure or UpstreamFailed("upstream_broke_off", "it closed the connection at once")
        if len(body) < HIGH_WATER:
            self._transport.write(head + body)
        else:
            await self._upload(head, memoryview(body))
        if not self._head_done and not self._failure:
            self._expect_within(response_timeout)

    async def _upload(self, head: bytes, body: memoryview) -> None:
        self._sending = True
        try:
            for start in range(0, len(body), PIECE):
                if self._transport is None or self._failure or self._head_done:
                    return
                self._expect_within(self._idle_timeout)
                self._transport.write(body[start : start + PIECE] if start else head + body[:PIECE])
                while self._drained is not None and not self._failure and not self._head_done:
                    await self._drained
        finally:
            self._sending = False

    async def head(self) -> None:
        """Wait for status and headers. Raises `UpstreamFailed`."""
        while not self._head_done:
            await self._more()

    async def body(self) -> AsyncIterator[bytes]:
        """The body in chunks as they come. Raises `UpstreamFailed` if it breaks off."""
        while True:
            while self._chunks:
                # All at once: a chunk of a single byte costs who reads it as much as one of many.
                chunk = b"".join(self._chunks) if len(self._chunks) > 1 else self._chunks[0]
                self._chunks.clear()
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
        """Close; what of a request has not left is not sent any more."""
        self.reusable = False
        if self._transport is None:
            return
        if self._transport.get_write_buffer_size():
            self._transport.abort()  # an orderly end would wait for an upstream that may never read it
        else:
            self._transport.close()

    @property
    def closed(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    async def _more(self) -> None:
        if self._failure:
            raise self._failure
        self._waiter = self._loop.create_future()
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
        self._deadline = math.inf
        self._wake()
        self.resume_writing()

    def _resume(self) -> None:
        self._paused = False
        if not self._done:
            self._expect_within(self._idle_timeout)
        if self._transport and not self._transport.is_closing():
            self._transport.resume_reading()

    # -- time -------------------------------------------------------------------------------------
    # The timer is not moved with the deadline: it looks, when it fires, how much is left. So a call costs
    # no timer of its own.

    def _expect_within(self, seconds: float) -> None:
        self._deadline = self._loop.time() + seconds
        if self._deadline < self._timer_at:
            self._set_timer()

    def _set_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
        self._timer_at = self._deadline
        self._timer = self._loop.call_at(self._deadline, self._look_at_the_clock)

    def _look_at_the_clock(self) -> None:
        self._timer, self._timer_at = None, math.inf
        if self._deadline == math.inf:
            return
        if self._loop.time() < self._deadline:
            self._set_timer()
        else:
            self.abort(UpstreamFailed("upstream_timeout", self._missing))

    @property
    def _missing(self) -> str:
        if self._sending:
            return f"it stopped reading the request for {self._idle_timeout:g} s"
        if self._head_done:
            return f"it sent nothing for {self._idle_timeout:g} s in the middle of its answer"
        return f"it did not answer within {self._response_timeout:g} s"

    # -- asyncio.Protocol -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass

    def data_received(self, data: bytes) -> None:
        if self._parser is None or self._done:  # an answer to nothing
            self.close()
            return
        self._bare += len(data)
        try:
            self._parser.feed_data(data)
            if self._bare > HEADER_LIMIT and not self._done:
                raise ValueError(_HEADERS_TOO_LONG)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade, ValueError) as error:
            if self._done:  # the answer is whole, and what comes behind it answers nothing
                self.close()
                return
            detail = f"what came is not an HTTP answer to this request: {_explain(error)}"
            self.abort(UpstreamFailed("upstream_bad_answer", detail))
            return
        if self._head_done and not self._done and not self._paused:
            self._expect_within(self._idle_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._timer:
            self._timer.cancel()
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
        self._drained = self._loop.create_future()

    def resume_writing(self) -> None:
        drained, self._drained = self._drained, None
        if drained and not drained.done():
            drained.set_result(None)

    # -- httptools --------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._done:
            raise ValueError("a second answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        self._header_bytes += len(name) + len(value)
        self._header_count += 1
        if self._header_bytes > HEADER_LIMIT:
            raise ValueError(_HEADERS_TOO_LONG)
        if self._header_count > HEADER_COUNT:
            raise ValueError(f"there are more than {HEADER_COUNT} headers")
        if self._head_done:  # a trailer, which nobody asked for
            return
        name, value = name.lower(), value.strip()
        if name == b"content-length":
            self._delimited = True
        elif name == b"transfer-encoding":
            self._delimited = True
            if value.lower() != b"chunked":
                raise ValueError("its transfer encoding is not just chunked, which was not asked for")
        elif name == b"content-type" and value.lower().startswith(b"text/event-stream"):
            self._idle_timeout = math.inf
        elif name == b"keep-alive" and (kept := _KEPT_FOR.search(value)):
            self.idle_for = min(IDLE_FOR, max(0, int(kept[1]) - 1))  # it must not close as we send
        self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        self.status = self._parser.get_status_code()
        if self.status < 200:  # an interim answer (RFC 9110, section 15.2)
            self.headers, self._header_bytes, self._header_count = [], 0, 0
            return
        if self.status > 599:
            raise ValueError(f"there is no HTTP status {self.status}")
        self._head_done = True
        self._bare = self._header_bytes = self._header_count = 0
        self._early = self._sending or self._drained is not None  # it did not wait for the whole request
        self.resume_writing()
        self._wake()

    def on_body(self, chunk: bytes) -> None:
        self._bare = 0
        self._chunks.append(chunk)
        self._held += len(chunk)
        if self._held > HIGH_WATER and not self._paused and self._transport:
            self._paused = True
            self._deadline = math.inf  # it is we who do not read
            self._transport.pause_reading()
        self._wake()

    def on_message_complete(self) -> None:
        assert self._parser is not None
        if self.status < 200:
            return
        self._done = True
        self._deadline = math.inf
        self.reusable = self._parser.should_keep_alive() and not self._early and not self.closed
        self._wake()


def _explain(error: Exception) -> str:
    """What went wrong: an exception of one of our callbacks hides behind the parser's."""
    if isinstance(error, httptools.HttpParserUpgrade):
        return "it changes to another protocol, which nobody asked for"
    return str(error.__context__ or error)
