"""The way of a message to one upstream over HTTP: where, with which credential, how patiently."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

from libs.common.control.entries import Server
from services.gateway import headers, messages
from services.gateway.connection import Header, UpstreamFailed
from services.gateway.credentials import NONE, Opened
from services.gateway.links.port import Check, Era, always
from services.gateway.pool import Pools
from services.gateway.upstream import Response, Target, UpstreamExchange, request_head, target_of, with_query

MESSAGE_LIMIT = 16 * 1024 * 1024  # bytes of one message from the upstream
JSON_OR_EVENTS = (b"accept", b"application/json, text/event-stream")
EVENTS = (b"accept", b"text/event-stream")
_AGENT = (b"user-agent", b"lockgate")

# Told of an answer that shows which era the upstream speaks: the era it was asked in, the method, the HTTP
# status, the message. See spoken_eras.py.
Saw: TypeAlias = Callable[[Era, str, int, bytes], None]
# Another version of a credential that the upstream refused (HTTP 401), if there is one; raises
# `UpstreamFailed`.
Renewed: TypeAlias = Callable[[Opened], Awaitable[Opened | None]]


async def no_other(_: Opened) -> None:
    """What is refused stays refused."""


@dataclass(frozen=True, slots=True)
class Route:
    """How to reach one upstream. Timeouts are in seconds: to a connection, to the first byte of an answer,
    between two of its bytes (event streams may be silent for ever). `standing` is the check for what is sent
    on nobody's request, to go on listening."""

    url: str
    pools: Pools
    slug: str = ""
    credential: Opened = NONE
    connect_timeout: float = 5.0
    response_timeout: float = 120.0
    idle_timeout: float = 60.0
    message_limit: int = MESSAGE_LIMIT
    saw: Saw = lambda *_: None
    standing: Check = always
    renewed: Renewed = no_other
    target: Target = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "target", target_of(self.url))

    @classmethod
    def to(cls, server: Server, pools: Pools, credential: Opened = NONE) -> "Route":
        return cls(
            server.url,
            pools,
            server.slug,
            credential,
            server.connect_timeout,
            server.response_timeout,
            server.idle_timeout,
        )

    @asynccontextmanager
    async def answer(
        self,
        method: bytes,
        given: Sequence[Header],
        body: bytes | None = None,
        check: Check = always,
        *,
        target: Target | None = None,
        session: bytes = b"",
        extra: Sequence[Header] = (),
        lasting: bool = False,
        running: "set[UpstreamExchange] | None" = None,
    ) -> AsyncIterator[Response]:
        """The answer to one HTTP request, without the credential in it, until the block is left.

        `extra` headers are sent as they are; `target` must be of the same origin as the URL. `lasting` is a
        stream without an end of its own. While it runs, the exchange is in `running`, for who wants to
        abort it. Where the credential is refused, the request is sent once more with a newer one: after a 401
        it has not run, whatever else has of the call that it belongs to. Raises `UpstreamFailed`.
        """
        target = target or self.target

        async def run(credential: Opened) -> Response:
            sent = headers.upstream([_AGENT, *given], credential.headers, session, has_body=body is not None)
            return await exchange.run(
                request_head(
                    method,
                    with_query(target, credential.query),
                    [*sent, *extra],
                    None if body is None else len(body),
                ),
                body or b"",
                self.connect_timeout,
                self.response_timeout,
                check,
                idle_timeout=self.idle_timeout,
            )

        credential = self.credential
        exchange = UpstreamExchange(self.pools.pool(target.origin, self.slug), lasting=lasting)
        if running is not None:
            running.add(exchange)
        try:
            response = await run(credential)
            if response.status == 401 and (newer := await self.renewed(credential)):
                credential = newer
                response = await run(credential)
            response.check()
            if credential.redactor:
                response.redact(credential.redactor)
            yield response
        except asyncio.CancelledError:
            exchange.abort(UpstreamFailed("cancelled", "nobody waits for it any longer"))
            raise
        finally:
            exchange.release()
            if running is not None:
                running.discard(exchange)

    async def json(self, response: Response) -> bytes:
        """The whole body of an answer. Raises `UpstreamFailed`."""
        return await response.read(self.message_limit)

    async def error_in(self, response: Response) -> bytes:
        """The JSON-RPC error in an answer that is no success; empty if there is none."""
        if not response.is_json:
            return b""
        body = await self.json(response)
        try:
            return body if messages.read(body).error else b""
        except messages.NotAMessage:
            return b""


def refused(status: int) -> UpstreamFailed:
    """The failure for an HTTP status behind which there is no JSON-RPC error."""
    if status == 429:
        return UpstreamFailed("upstream_busy", "it asks for fewer requests (HTTP 429)")
    meaning = _MEANINGS.get(status, "it does not take the message")
    return UpstreamFailed("upstream_bad_answer", f"{meaning} (HTTP {status})")


_MEANINGS = {
    403: "it forbids this with the credential that it got",
    404: "there is no MCP server at its URL",
    405: "it takes no messages at its URL",
    406: "it can answer neither with JSON nor with events",
    413: "the message is too large for it",
    415: "it does not take JSON",
    500: "it failed",
    502: "what stands before it cannot reach it",
    503: "it is not available now",
    504: "what stands before it got no answer from it",
}
