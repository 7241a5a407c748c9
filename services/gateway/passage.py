"""One HTTP request of an authenticated caller: read, and answered by the transparent lane unless diverted.

read → parse → decide → credential → journal → forward → relay → record
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeAlias

from libs.common.decision.ladder import Decision
from services.gateway import headers, refusals
from services.gateway.asgi import Gone, Receive, Scope, Send, disconnected
from services.gateway.authentication import Unauthenticated
from services.gateway.capture import Capture
from services.gateway.connection import Header, UpstreamFailed
from services.gateway.credentials import Opened
from services.gateway.downstream import Downstream
from services.gateway.elicitation import declares
from services.gateway.envelope import Malformed, check_headers, is_simple, parse
from services.gateway.lists import is_filtered, is_personal
from services.gateway.refusals import Refusal
from services.gateway.running import Flight, TooMany
from services.gateway.sessions import fingerprint, opens_urls
from services.gateway.ticket import Caller, Refused, Shared, Ticket
from services.gateway.upstream import (
    Response,
    Target,
    UpstreamExchange,
    request_head,
    target_of,
    with_query,
)

METHODS = {"POST", "GET", "DELETE"}
PIECE_WITHIN = 30.0  # seconds for the next piece of a body

_PARSER = ThreadPoolExecutor(1, "parser")


# Given the ticket and the body of a request, None if it is for this lane; otherwise to be awaited, and true
# if another lane has answered it. Raises `Refused` and `Unauthenticated` before it has.
Divert: TypeAlias = Callable[[Ticket, bytes], Awaitable[bool] | None]


class Passage:
    """State of one exchange. `run` is its whole life."""

    def __init__(
        self,
        shared: Shared,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        server: str,
        caller: Caller,
        divert: Divert,
    ) -> None:
        self._shared, self._receive, self._send = shared, receive, send
        self._server, self._claims, self._divert = server, caller.claims, divert
        self._method: str = scope["method"]
        self._given: list[Header] = scope["headers"]
        self._headers = dict(self._given)
        self._downstream = Downstream(send, shared.settings.gateway_list_limit)
        self._ticket = Ticket(shared, caller, server, self._method)
        self._capture: Capture | None = None
        self._body = b""
        self._session = caller.session

    async def run(self) -> None:
        """Decide, forward, record. Raises `Unauthenticated` when the token no longer holds."""
        try:
            if self._method not in METHODS:
                raise Refused(Refusal(405, -32600, "Use POST, GET or DELETE", "method_not_allowed"))
            self._check_head()
            if self._method == "POST":
                self._ticket.decide_early()
                await self._read()
                await self._parse()
                await self._ticket.connected()
            diverted = self._divert(self._ticket, self._body)
            if diverted is not None and await diverted:
                return
            await self._forward(self._ticket.decide())
        except Refused as error:
            self._ticket.deny(error)
            await self._refuse(error.refusal, error.id)

    # -- before the decision ----------------------------------------------------------------------

    def _check_head(self) -> None:
        limit = self._shared.settings.gateway_header_limit
        if headers.are_too_large(self._given, limit):
            detail = f"Send at most {headers.COUNT_LIMIT} headers, and {limit} bytes of them"
            raise Refused(Refusal(431, -32600, detail, "headers_too_large"))

    async def _read(self) -> None:
        """Read the body. Raises `Refused` when it is too large or encoded."""
        limit = self._shared.settings.gateway_body_limit
        too_large = Refused(Refusal(413, -32600, f"The body is larger than {limit} bytes", "body_too_large"))
        if not headers.is_plain_json(self._given):
            detail = "Send application/json in UTF-8, without a content encoding"
            raise Refused(Refusal(415, -32600, detail, "content_type"))
        announced = self._headers.get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > limit:
            self._ticket.record.input_bytes = int(announced)
            raise too_large
        first, more = await self._piece()
        if not more and len(first) <= limit:
            self._body = first
            return
        body = bytearray(first)
        with self._arriving():
            while more and len(body) <= limit:
                async with asyncio.timeout(PIECE_WITHIN):
                    piece, more = await self._piece()
                body += piece
        if len(body) > limit:
            self._ticket.record.input_bytes = len(body)
            raise too_large
        self._body = bytes(body)

    async def _piece(self) -> tuple[bytes, bool]:
        """A piece of the body, and whether more follow. Raises `Gone`."""
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise Gone
        return message.get("body", b""), message.get("more_body", False)

    @contextlib.contextmanager
    def _arriving(self) -> Iterator[None]:
        """What has come so far stands in memory: not too much of one person's, and not for ever."""
        try:
            with self._shared.running.receive(self._claims.subject):
                yield
        except TooMany:
            detail = "You have too many requests half sent"
            raise Refused(Refusal(429, refusals.DENIED, detail, "too_many_calls")) from None
        except TimeoutError:
            detail = f"Nothing of the body came for {PIECE_WITHIN:g} s"
            raise Refused(Refusal(408, -32600, detail, "body_too_slow")) from None

    async def _parse(self) -> None:
        """Make the envelope. Raises `Refused` for what is no single JSON-RPC message."""
        try:
            if is_simple(self._body):
                envelope = parse(self._body)
            else:  # one at a time, and not on the event loop: nobody's large body delays other people's calls
                loop = asyncio.get_running_loop()
                envelope = await loop.run_in_executor(_PARSER, parse, self._body)
            self._ticket.take(envelope)
            check_headers(envelope, self._given)
        except Malformed as error:
            if self._ticket.envelope is None:
                self._ticket.keep_input(self._body)
            raise Refused(Refusal(400, error.code, error.detail, error.reason), error.id) from error

    # -- forwarding -------------------------------------------------------------------------------

    async def _forward(self, decision: Decision) -> None:
        assert decision.server
        ticket, target = self._ticket, target_of(decision.server.url)
        pool = self._shared.pools.pool(target.origin, self._server)
        exchange = UpstreamExchange(pool, lasting=ticket.is_lasting)
        try:
            with (
                ticket.in_flight(decision, exchange) as flight,
                contextlib.closing(_Watch(exchange)) as watch,
            ):
                session = self._upstream_session(decision)
                credential = await ticket.credential(decision)
                await ticket.admit(decision)
                watch.begin(self._receive)
                try:
                    await self._exchange(flight, decision, target, session, credential)
                except UpstreamFailed as error:
                    await self._failed(error, decision, flight)
        finally:
            exchange.release()

    def _upstream_session(self, decision: Decision) -> bytes:
        if not self._session:
            return b""
        session = self._shared.sessions.unwrap(self._session, self._server, self._claims.subject)
        if session is None:
            detail = "this session has ended, or is not yours: connect again"
            raise self._ticket.refused("session_foreign", detail, decision)
        return session

    async def _exchange(
        self, flight: Flight, decision: Decision, target: Target, session: bytes, credential: Opened
    ) -> None:
        """Once more with a newer credential where the upstream refuses it: after a 401 nothing has run."""
        response = await self._send_upstream(flight, decision, target, session, credential)
        if response.status == 401 and (newer := await self._shared.wallet.renew(credential)):
            credential = newer
            response = await self._send_upstream(flight, decision, target, session, credential)
        self._ticket.answering()
        response.check()
        if credential.redactor:
            response.redact(credential.redactor)
        await self._pass_on(response)

    async def _send_upstream(
        self, flight: Flight, decision: Decision, target: Target, session: bytes, credential: Opened
    ) -> Response:
        server = decision.server
        assert server and isinstance(flight.carrier, UpstreamExchange)
        has_body = self._method == "POST"
        passed = headers.upstream(self._given, credential.headers, session, has_body=has_body)
        target = with_query(target, credential.query)
        return await flight.carrier.run(
            request_head(self._method.encode(), target, passed, len(self._body) if has_body else None),
            self._body,
            server.connect_timeout,
            server.response_timeout,
            partial(self._ticket.decide_again, flight),
            idle_timeout=server.idle_timeout,
        )

    async def _pass_on(self, response: Response) -> None:
        ticket, envelope = self._ticket, self._ticket.envelope
        sse = response.is_event_stream
        id = envelope.id if envelope else b"null"
        capture = self._capture = Capture(id, self._shared.settings.gateway_record_limit, sse=sse)
        out = self._answer_headers(response, sse=sse)
        # A stream without a request may replay what belongs to an earlier one.
        lists = is_filtered(envelope) if envelope else sse
        personal = envelope is not None and is_personal(envelope)
        if sse and ticket.listen:
            await self._downstream.listen(response, out, capture, ticket.shown, ticket.listen)
        elif sse and (lists or personal):
            await self._downstream.events(response, out, capture, ticket.shown, required=lists)
        elif (lists or personal) and response.status < 300:
            await self._downstream.message(response, out, capture, ticket.shown, required=lists)
        else:
            await self._downstream.as_it_comes(response, out, capture)
        ticket.conclude(response.status, capture.end(), sse=sse)

    def _answer_headers(self, response: Response, *, sse: bool) -> list[Header]:
        out = headers.downstream(response.headers)
        if session := response.header(b"mcp-session-id"):
            envelope, user = self._ticket.envelope, self._claims.subject
            can = opens_urls(self._session) or (envelope is not None and declares(envelope))
            wrapped = self._shared.sessions.wrap(session, self._server, user, opens_urls=can)
            out.append((b"mcp-session-id", wrapped))
            self._ticket.record.session = fingerprint(wrapped)
        if sse:
            out.append((b"x-accel-buffering", b"no"))
        return out

    # -- the outcome ------------------------------------------------------------------------------

    async def _failed(self, error: UpstreamFailed, decision: Decision, flight: Flight) -> None:
        """The exchange did not come to its end: tell the caller why, if there is still one."""
        if error.reason == "cancelled":
            self._cancelled(error)
            return
        try:
            refusal = self._ticket.fail(error, decision, flight)
        except Unauthenticated:
            if not self._downstream.started:
                raise
        else:
            await self._refuse(refusal)

    def _cancelled(self, error: UpstreamFailed) -> None:
        if self._capture and self._capture.outcome.answered:
            # The client has its answer, and did not wait for the stream to end.
            self._ticket.conclude(200, self._capture.outcome, sse=True)
        else:
            self._ticket.finish("cancelled", error.reason, error.detail)

    async def _refuse(self, refusal: Refusal, id: bytes | None = None) -> None:
        """Send a refusal. An answer that has begun breaks off: without its end, nobody takes it for whole."""
        if not self._downstream.started:
            await refusals.answer(self._send, refusal, id or self._ticket.id)


class _Watch:
    """Ends an exchange when the client goes away: for MCP that is how a call is cancelled."""

    def __init__(self, exchange: UpstreamExchange) -> None:
        self._exchange = exchange
        self._task: asyncio.Task[None] | None = None

    def begin(self, receive: Receive) -> None:
        self._task = asyncio.create_task(self._run(receive))

    def close(self) -> None:
        if self._task:
            self._task.cancel()

    async def _run(self, receive: Receive) -> None:
        await disconnected(receive)
        self._exchange.abort(UpstreamFailed("cancelled", "the client went away"))
