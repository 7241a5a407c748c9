"""HTTP/1.1 client for upstreams: pooled, streaming, never in the way.

No redirect is followed and nothing is sent twice: a request that may have run is not repeated. Closing a
response before its end closes the connection, which is how a cancelled call reaches the upstream.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

from libs.common.clock import elapsed
from libs.common.lifecycle import cancel
from services.gateway.connection import Connection, Header, UpstreamFailed

IDLE_FOR = 3.0  # seconds; common servers close idle connections after five


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
