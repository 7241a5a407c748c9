"""HTTP/1.1 client for upstreams, on `asyncio.Protocol` and httptools: pooled, streaming, never in the way.

No redirect is followed and nothing is sent twice: a request that may have run is not repeated. Closing a
response before its end closes the connection, which is how a cancelled call reaches the upstream.
"""

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import NamedTuple, Protocol, cast
from urllib.parse import urlsplit

import httptools
import structlog

from libs.common.clock import elapsed
from libs.common.lifecycle import cancel

log = structlog.get_logger(__name__)

Header = tuple[bytes, bytes]

IDLE_FOR = 3.0  # seconds; common servers close idle connections after five
HIGH_WATER = 256 * 1024  # bytes held of an answer before reading from the upstream pauses
HEADER_LIMIT = 64 * 1024


class UpstreamFailed(Exception):
    """No usable answer. `reason` is a reason id, `detail` a sentence that names what happened."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


class Origin(NamedTuple):
    """Where connections go."""

    scheme: str
    host: str
    port: int


class Target(NamedTuple):
    """An upstream URL, taken apart for the request line and the Host header."""

    origin: Origin
    host_header: bytes
    path: bytes


def target_of(url: str) -> Target:
    """`url` taken apart. Raises `ValueError` for what is no http(s) URL."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"not an http(s) URL: {url}")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    host = parts.netloc.rpartition("@")[2]
    origin = Origin(parts.scheme, parts.hostname, port)
    return Target(origin, host.encode("ascii" if host.isascii() else "idna"), path.encode())


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


class Redactor(Protocol):
    """What `Response.redact` needs: see redaction.py."""

    def headers(self, headers: list[Header]) -> list[Header]: ...

    def stream(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]: ...


class Response:
    """An answer whose head has come."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.status = connection.status
        self.headers = connection.headers
        self._redactor: Redactor | None = None

    def redact(self, redactor: Redactor) -> None:
        """Take secrets out of everything that is read from here on."""
        self._redactor, self.headers = redactor, redactor.headers(self.headers)

    def header(self, name: bytes) -> bytes:
        """The first value of a header; empty if it is not there."""
        return next((value for key, value in self.headers if key == name), b"")

    def chunks(self) -> AsyncIterator[bytes]:
        body = self._connection.body()
        return self._redactor.stream(body) if self._redactor else body

    async def read(self, limit: int) -> bytes:
        """The whole body. Raises `UpstreamFailed` when it is longer than `limit` bytes."""
        body = bytearray()
        async for chunk in self.chunks():
            body += chunk
            if len(body) > limit:
                raise UpstreamFailed("upstream_bad_answer", f"its answer is longer than {limit} bytes")
        return bytes(body)


class Exchange:
    """One request and its answer, which can be aborted from outside at any moment until its `release`."""

    def __init__(self, pool: "Pool") -> None:
        self.aborted: UpstreamFailed | None = None
        self._pool = pool
        self._connection: Connection | None = None
        self._connecting: asyncio.Task[Connection] | None = None

    def abort(self, failure: UpstreamFailed) -> None:
        """Whoever waits for the upstream gets `failure`."""
        self.aborted = self.aborted or failure
        if self._connecting:
            self._connecting.cancel()
        if self._connection:
            self._connection.abort(failure)

    async def run(
        self,
        head: bytes,
        body: bytes,
        connect_timeout: float,
        response_timeout: float,
        last_check: Callable[[], None],
    ) -> Response:
        """Send, and wait for the head of the answer. Raises `UpstreamFailed`.

        `last_check` is called when a connection is there, right before the first byte; it may raise too.
        """
        if self.aborted:
            raise self.aborted
        connection = self._connection = self._pool.take() or await self._connect(connect_timeout)
        if self.aborted:
            raise self.aborted
        last_check()
        try:
            async with asyncio.timeout(response_timeout):
                await connection.send(head, body)
                await connection.head()
        except TimeoutError as error:
            detail = f"it did not answer within {response_timeout:g} s"
            raise UpstreamFailed("upstream_timeout", detail) from error
        return Response(connection)

    def release(self) -> None:
        """Give the connection back, or close it if the answer was not read to its end."""
        connection, self._connection = self._connection, None
        if connection:
            self._pool.put(connection)

    async def _connect(self, timeout: float) -> Connection:
        self._connecting = asyncio.ensure_future(self._pool.connect(timeout))
        try:
            return await self._connecting
        except asyncio.CancelledError:
            if self.aborted:
                raise self.aborted from None
            self._connecting.cancel()
            raise
        finally:
            self._connecting = None


class Pool:
    """The connections to one origin."""

    def __init__(self, origin: Origin, limit: int) -> None:
        self.origin = origin
        self._limit = limit
        self._idle: list[Connection] = []
        self._count = 0
        self._tls = ssl.create_default_context() if origin.scheme == "https" else None

    def take(self) -> Connection | None:
        """An idle connection, the one used last."""
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed and elapsed() - connection.idle_since < IDLE_FOR:
                return connection
            self.discard(connection)
        return None

    async def connect(self, timeout: float) -> Connection:
        """A new connection. Raises `UpstreamFailed`."""
        if self._count >= self._limit:
            raise UpstreamFailed("upstream_busy", f"all {self._limit} connections to it are in use")
        self._count += 1
        try:
            async with asyncio.timeout(timeout):
                _, connection = await asyncio.get_running_loop().create_connection(
                    Connection, self.origin.host, self.origin.port, ssl=self._tls
                )
                return connection
        except TimeoutError as error:
            self._count -= 1
            raise UpstreamFailed("upstream_unreachable", f"no connection within {timeout:g} s") from error
        except OSError as error:
            self._count -= 1
            raise UpstreamFailed("upstream_unreachable", _explain(error)) from error
        except BaseException:
            self._count -= 1
            raise

    def put(self, connection: Connection) -> None:
        if not connection.reusable:
            self.discard(connection)
            return
        connection.idle_since = elapsed()
        self._idle.append(connection)

    def discard(self, connection: Connection) -> None:
        self._count -= 1
        connection.close()

    def close_idle(self, older_than: float = IDLE_FOR) -> None:
        """Close connections that have been idle for `older_than` seconds."""
        limit = elapsed() - older_than
        for connection in [c for c in self._idle if c.closed or c.idle_since <= limit]:
            self._idle.remove(connection)
            self.discard(connection)


class Pools:
    """A pool for each origin, made when first needed. One slow origin has no effect on another."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._pools: dict[Origin, Pool] = {}
        self._sweeper: asyncio.Task[None] | None = None

    def pool(self, origin: Origin) -> Pool:
        pool = self._pools.get(origin)
        if pool is None:
            pool = self._pools[origin] = Pool(origin, self._limit)
        return pool

    async def start(self) -> None:
        self._sweeper = asyncio.create_task(self._sweep(), name="upstream-sweeper")

    async def stop(self) -> None:
        await cancel(self._sweeper)
        for pool in self._pools.values():
            pool.close_idle(older_than=0)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(IDLE_FOR)
            for pool in self._pools.values():
                pool.close_idle()


def request_head(method: bytes, target: Target, headers: Sequence[Header], body_size: int | None) -> bytes:
    """Request line and headers (RFC 9112, sections 3 and 5)."""
    lines = [b"%b %b HTTP/1.1\r\nhost: %b" % (method, target.path, target.host_header)]
    lines.extend(b"%b: %b" % header for header in headers)
    if body_size is not None:
        lines.append(b"content-length: %d" % body_size)
    return b"\r\n".join([*lines, b"", b""])


def _explain(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate cannot be verified: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason}"
    if isinstance(error, ConnectionRefusedError):
        return "it refuses connections"
    return f"no connection: {error.strerror or error}"
