"""HTTP/1.1 client for upstreams: pooled, streaming, never in the way.

No redirect is followed and nothing is sent twice: a request that may have run is not repeated. Closing a
response before its end closes the connection, which is how a cancelled call reaches the upstream.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import quote, unquote_plus, urlsplit

from services.gateway.connection import Connection, Header, UpstreamFailed
from services.gateway.dialing import Origin
from services.gateway.pool import Pool
from services.gateway.redaction import Redactor

IDLE_TIMEOUT = 60.0  # seconds; what a server has that does not say (libs.common.control.entries)
# What may stand in a request target (RFC 3986, sections 3.3 and 3.4); the rest is written as %XX.
_TARGET = "/?:@!$&'()*+,;=~%"


class Target(NamedTuple):
    """An upstream URL, taken apart for the request line and the Host header."""

    origin: Origin
    host_header: bytes
    path: bytes


@lru_cache(1024)
def target_of(url: str) -> Target:
    """`url` taken apart. Raises `ValueError` for what is no http(s) URL."""
    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ValueError(f"not an http(s) URL: {url}")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    path = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), _TARGET)
    host = parts.netloc.rpartition("@")[2]
    origin = Origin(parts.scheme, parts.hostname, port)
    return Target(origin, host.encode("ascii" if host.isascii() else "idna"), path.encode())


def with_query(target: Target, credential: Mapping[str, str]) -> Target:
    """`target` with the parameters of a credential in its query, in the place of others of these names."""
    if not credential:
        return target
    path, _, query = target.path.decode().partition("?")
    kept = [
        pair for pair in query.split("&") if pair and unquote_plus(pair.partition("=")[0]) not in credential
    ]
    added = [f"{quote(name, '')}={quote(value, '')}" for name, value in credential.items()]
    return target._replace(path=f"{path}?{'&'.join([*kept, *added])}".encode())


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

    def check(self) -> None:
        """Raise `UpstreamFailed` for an answer that must not be passed on."""
        if self.status == 401:
            raise UpstreamFailed("upstream_unauthorized", "it does not accept the credential stored for it")
        if 300 <= self.status < 400:
            raise UpstreamFailed("upstream_bad_answer", f"it redirects elsewhere (HTTP {self.status})")
        if self.header(b"content-encoding") not in {b"", b"identity"}:
            raise UpstreamFailed("upstream_bad_answer", "it sent an encoded body that was not asked for")

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    @property
    def is_json(self) -> bool:
        return self._content_type.startswith(b"application/json")

    @property
    def is_event_stream(self) -> bool:
        return self._content_type.startswith(b"text/event-stream")

    @property
    def _content_type(self) -> bytes:
        return self.header(b"content-type").lower()

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


class UpstreamExchange:
    """One request and its answer, which can be aborted from outside at any moment until its `release`.

    `lasting`: the answer is a stream without an end of its own, such as that of a GET.
    """

    def __init__(self, pool: Pool, *, lasting: bool = False) -> None:
        self.aborted: UpstreamFailed | None = None
        self._pool, self._lasting = pool, lasting
        self._in_streams = False
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
        *,
        idle_timeout: float = IDLE_TIMEOUT,
    ) -> Response:
        """Send, and wait for the head of the answer. Raises `UpstreamFailed`. May be called again where the
        request before it did not run, whose answer is let go then.

        `last_check` is called when a connection is there, right before the first byte; it may raise too.
        The timeouts are in seconds: for a connection; from the end of the request to the head of the answer;
        for some of the request to be taken, and between bytes of an answer that is no event stream.
        """
        if self.aborted:
            raise self.aborted
        self.release()
        self._enter()
        connection = self._connection = self._pool.take() or await self._connect(connect_timeout)
        if self.aborted:
            raise self.aborted
        last_check()
        try:
            await connection.send(head, body, response_timeout, idle_timeout)
            await connection.head()
        except UpstreamFailed as error:
            if error.reason == "upstream_timeout":
                self._pool.did_not_answer(error.detail)
            raise
        self._pool.answered()
        return Response(connection)

    def _enter(self) -> None:
        """Raises `UpstreamFailed` when there is no use in trying."""
        if self._lasting:
            self._pool.enter_stream()
            self._in_streams = True
        self._pool.check_answering()

    def release(self) -> None:
        """Give the connection back, or close it if the answer was not read to its end."""
        connection, self._connection = self._connection, None
        if connection:
            self._pool.put(connection)
        if self._in_streams:
            self._in_streams = False
            self._pool.leave_stream()

    async def _connect(self, timeout: float) -> Connection:
        connecting = self._connecting = asyncio.ensure_future(self._pool.connect(timeout))
        try:
            return await connecting
        except asyncio.CancelledError:
            if self.aborted:
                raise self.aborted from None
            connecting.cancel()
            connecting.add_done_callback(self._not_needed)
            raise
        finally:
            self._connecting = None

    def _not_needed(self, connecting: asyncio.Task[Connection]) -> None:
        if not connecting.cancelled() and not connecting.exception():
            self._pool.discard(connecting.result())


def request_head(method: bytes, target: Target, headers: Sequence[Header], body_size: int | None) -> bytes:
    """Request line and headers (RFC 9112, sections 3 and 5)."""
    lines = [b"%b %b HTTP/1.1\r\nhost: %b" % (method, target.path, target.host_header)]
    lines.extend(b"%b: %b" % header for header in headers)
    if body_size is not None:
        lines.append(b"content-length: %d" % body_size)
    return b"\r\n".join([*lines, b"", b""])
