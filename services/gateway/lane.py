"""The transparent lane: Streamable HTTP on both sides. One `Passage` is one HTTP exchange.

Bodies are forwarded as they came, answers stream as they come. In between stands the ladder:

    origin → token → size, framing → decision → credential → journal → forward → record
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

import structlog

from libs.common.clock import elapsed, iso, now
from libs.common.control.entries import Server
from libs.common.control.tables import Tables
from libs.common.errors import Unavailable
from libs.common.ids import new_id
from libs.common.journal import Journal, JournalUnavailable
from libs.common.records import CallRecord, Status
from libs.common.tokens import Claims, InvalidToken
from services.gateway import headers, refusals
from services.gateway.capture import Capture, Outcome, Payload
from services.gateway.credentials import Wallet
from services.gateway.doorway import Doorway, NotAdmitted
from services.gateway.envelope import Envelope, Malformed, check_headers, parse
from services.gateway.ladder import Call, Decision, may_use_tool
from services.gateway.lists import Unfilterable, filter_tools, is_filtered
from services.gateway.refusals import JSON, Refusal
from services.gateway.running import Flight, Running
from services.gateway.sessions import Sessions, fingerprint
from services.gateway.settings import GatewaySettings
from services.gateway.sse import Splitter, TooLong, data_of, with_data
from services.gateway.upstream import (
    Exchange,
    Header,
    Pools,
    Response,
    UpstreamFailed,
    request_head,
    target_of,
)

log = structlog.get_logger(__name__)

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

METHODS = {"POST", "GET", "DELETE"}
# Refusals of these reasons mean that the token itself no longer holds: the answer is 401, not a verdict.
TOKEN_REASONS = {"token_revoked", "user_unknown", "user_inactive"}


class Gone(Exception):
    """The client went away before its request had come in."""


@dataclass(frozen=True, slots=True)
class Lane:
    """What all passages of a replica share."""

    settings: GatewaySettings
    tables: Tables
    doorway: Doorway
    decide: Callable[[Claims, Call], Decision]
    wallet: Wallet
    sessions: Sessions
    journal: Journal
    pools: Pools
    running: Running

    async def __call__(self, scope: Scope, receive: Receive, send: Send, server: str) -> None:
        """Handle a request to `/mcp/{server}`, as an ASGI application."""
        given = dict(scope["headers"])
        origin = given.get(b"origin")
        if origin is not None and origin.decode("latin-1") not in self.settings.origins:
            # Not worth a record: a browser sent it without anybody's token.
            detail = "pages of this origin may not call"
            await _answer(
                send, Refusal(403, refusals.DENIED, f"Lockgate: {detail}", "origin_not_allowed"), b"null"
            )
            return
        try:
            claims = self.doorway.admit(given.get(b"authorization", b""), server, _address(scope))
            await Passage(self, (scope, receive, send), server, claims).run()
        except NotAdmitted as error:
            await _challenge(send, error.challenge)
        except Gone:
            return


class Passage:
    """One request of an authenticated caller, from its body to its record."""

    def __init__(self, lane: Lane, asgi: tuple[Scope, Receive, Send], server: str, claims: Claims) -> None:
        self._lane = lane
        self._scope, self._receive, self._send = scope, _, _ = asgi
        self._server, self._claims = server, claims
        self._given: list[Header] = scope["headers"]
        self._headers = dict(self._given)
        self._began = elapsed()
        self._started = False  # the head of the answer is sent
        self._envelope: Envelope | None = None
        self._body = b""
        self._session = self._headers.get(b"mcp-session-id", b"").strip()
        self._record = CallRecord(
            id=new_id(),
            time=iso(now()),
            status="denied",
            server=server,
            method=scope["method"],
            user=claims.subject,
            email=user.email if (user := lane.tables.users.get(claims.subject)) else "",
            grant=claims.grant,
            client_id=claims.client_id,
            client_name=claims.client_name,
            address=_address(scope),
            session=fingerprint(self._session),
            protocol=self._headers.get(b"mcp-protocol-version", b"").decode("latin-1").strip()[:40],
        )

    async def run(self) -> None:
        """Decide, forward, record. Raises `NotAdmitted` when the token no longer holds."""
        try:
            if self._scope["method"] not in METHODS:
                raise _Refused(Refusal(405, -32600, "Use POST, GET or DELETE", "method_not_allowed"))
            if self._scope["method"] == "POST":
                await self._read()
            decision = self._decide()
            await self._forward(decision)
        except _Refused as error:
            refusal = error.refusal
            self._finish("denied", error.reason, detail=refusal.message, status_code=refusal.status)
            await self._refuse(refusal, error.id)

    # -- before the decision ----------------------------------------------------------------------

    async def _read(self) -> None:
        """Read and parse the body. Raises `_Refused` for what is no single JSON-RPC message."""
        limit = self._lane.settings.gateway_body_limit
        if self._headers.get(b"content-encoding", b"identity") != b"identity":
            raise _Refused(Refusal(415, -32600, "Encoded bodies are not accepted", "content_encoding"))
        too_large = _Refused(Refusal(413, -32600, f"The body is larger than {limit} bytes", "body_too_large"))
        announced = self._headers.get(b"content-length", b"0")
        if announced.isdigit() and int(announced) > limit:
            self._record.input_bytes = int(announced)
            raise too_large
        chunks: list[bytes] = []
        size, more = 0, True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise Gone
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            more = message.get("more_body", False)
            if size > limit:
                self._record.input_bytes = size
                raise too_large
        self._body = b"".join(chunks)
        self._parse()

    def _parse(self) -> None:
        record = self._record
        try:
            self._envelope = envelope = parse(self._body)
            record.method, record.tool = envelope.method or "response", envelope.name
            self._keep_input(envelope.params)
            check_headers(envelope, self._headers)
        except Malformed as error:
            if self._envelope is None:
                self._keep_input(self._body)
            raise _Refused(Refusal(400, error.code, error.detail, error.reason), error.id) from error

    def _keep_input(self, data: bytes) -> None:
        payload = Payload.of(data, self._lane.settings.gateway_record_limit)
        record = self._record
        record.input, record.input_bytes, record.input_sha256 = payload.text, payload.size, payload.sha256

    # -- the decision -----------------------------------------------------------------------------

    def _decide(self) -> Decision:
        """Climb the ladder. Raises `_Refused` with the reason, or `NotAdmitted`."""
        envelope = self._envelope
        call = Call(self._server, envelope.method, envelope.name) if envelope else Call(self._server)
        decision = self._lane.decide(self._claims, call)
        record = self._record
        record.rule, record.revision, record.reason = decision.rule, decision.revision, decision.reason
        record.group = decision.group.id if decision.group else ""
        if decision.allowed:
            return decision
        if decision.reason in TOKEN_REASONS:
            invalid = InvalidToken(decision.reason)  # type: ignore[arg-type]
            raise self._lane.doorway.refuse(invalid, self._server, record.address, self._claims)
        raise _Refused(self._refusal(decision.reason, decision.detail, decision), reason=decision.reason)

    def _refusal(self, reason: str, detail: str, decision: Decision) -> Refusal:
        answered = self._envelope is not None and self._envelope.kind == "request"
        return refusals.refusal(
            reason, self._server, detail, rule=decision.rule, revision=decision.revision, answered=answered
        )

    def _upstream_session(self, user: str, decision: Decision) -> bytes:
        if not self._session:
            return b""
        session = self._lane.sessions.unwrap(self._session, self._server, user)
        if session is None:
            raise _Refused(self._refusal("session_foreign", "there is no such session", decision))
        return session

    # -- forwarding -------------------------------------------------------------------------------

    async def _forward(self, decision: Decision) -> None:
        assert decision.server
        assert decision.user
        session = self._upstream_session(decision.user.id, decision)
        target = target_of(decision.server.url)
        exchange = Exchange(self._lane.pools.pool(target.origin))
        call = Call(self._server, self._record.method if self._envelope else "", self._record.tool)
        flight = Flight(self._claims, call, exchange)
        # From here on a change that forbids the call ends it, however far it has come.
        self._lane.running.add(flight)
        watcher: asyncio.Task[None] | None = None
        try:
            credential = await self._credential(decision)
            await self._admit()
            watcher = asyncio.create_task(self._watch(exchange))
            passed = headers.upstream(self._given, credential, session)
            size = len(self._body) if self._scope["method"] == "POST" else None
            head = request_head(self._scope["method"].encode(), target, passed, size)
            await self._exchange(exchange, head, decision.server, decision)
        except UpstreamFailed as error:
            await self._failed(error, decision, flight)
        except JournalUnavailable as error:
            raise _Refused(self._refusal("journal_unavailable", error.detail, decision)) from error
        finally:
            if self._record.status == "admitted":
                self._finish("failed", "interrupted", detail="the gateway stopped, or failed; see its log")
            self._lane.running.remove(flight)
            exchange.release()
            if watcher:
                watcher.cancel()

    async def _credential(self, decision: Decision) -> list[Header]:
        held = self._lane.wallet.held(decision.credential)
        if held is not None:
            return held
        try:
            return await self._lane.wallet.open(decision.credential)
        except Unavailable as error:
            raise _Refused(self._refusal("credential_unavailable", error.detail, decision)) from error

    async def _admit(self) -> None:
        self._record.status = "admitted"
        await self._lane.journal.admit(self._record)

    async def _watch(self, exchange: Exchange) -> None:
        """End the exchange when the client goes away: for MCP that is how a call is cancelled."""
        with contextlib.suppress(asyncio.CancelledError):
            while (await self._receive())["type"] != "http.disconnect":
                pass
            exchange.abort(UpstreamFailed("cancelled", "the client went away"))

    async def _exchange(self, exchange: Exchange, head: bytes, server: Server, decision: Decision) -> None:
        response = await exchange.run(head, self._body, server.connect_timeout, server.response_timeout)
        self._record.first_byte_us = self._elapsed_us()
        _check_answer(response)
        self._record.http_status = response.status
        sse = response.header(b"content-type").lower().startswith(b"text/event-stream")
        id = self._envelope.id if self._envelope else b"null"
        capture = Capture(id, self._lane.settings.gateway_record_limit, sse=sse)
        out = self._answer_headers(response, decision, sse=sse)
        filtered = (is_filtered(self._envelope) if self._envelope else False) or (
            self._envelope is None and sse
        )
        if sse and filtered:
            await self._relay_events(response, out, capture, decision)
        elif filtered and response.status == 200:
            await self._relay_list(response, out, capture, decision)
        else:
            await self._relay(response, out, capture)
        self._conclude(response, capture.end(), sse=sse)

    def _answer_headers(self, response: Response, decision: Decision, *, sse: bool) -> list[Header]:
        assert decision.user
        out = headers.downstream(response.headers)
        if session := response.header(b"mcp-session-id"):
            out.append((b"mcp-session-id", self._lane.sessions.wrap(session, self._server, decision.user.id)))
            self._record.session = fingerprint(out[-1][1])
        if sse:
            out.append((b"x-accel-buffering", b"no"))
        return out

    async def _relay(self, response: Response, out: list[Header], capture: Capture) -> None:
        """Pass the answer on as it comes."""
        if length := response.header(b"content-length"):
            out.append((b"content-length", length))
        await self._start(response.status, out)
        async for chunk in response.chunks():
            capture.feed(chunk)
            await self._send({"type": "http.response.body", "body": chunk, "more_body": True})
        await self._send({"type": "http.response.body", "body": b""})

    async def _relay_list(
        self, response: Response, out: list[Header], capture: Capture, decision: Decision
    ) -> None:
        """Pass on a list that came as one JSON message, without what the caller may not see."""
        body = await response.read(self._lane.settings.gateway_list_limit)
        capture.feed(body)
        body = self._filter(body, decision)
        await self._start(response.status, [*out, (b"content-length", str(len(body)).encode())])
        await self._send({"type": "http.response.body", "body": body})

    async def _relay_events(
        self, response: Response, out: list[Header], capture: Capture, decision: Decision
    ) -> None:
        """Pass on events one by one, lists in them without what the caller may not see."""
        splitter = Splitter(self._lane.settings.gateway_list_limit)
        await self._start(response.status, out)
        async for chunk in response.chunks():
            capture.feed(chunk)
            try:
                events = splitter.feed(chunk)
            except TooLong as error:
                raise UpstreamFailed("upstream_bad_answer", "it sent an event that is too long") from error
            for event in events:
                body = event
                if b'"tools"' in event:
                    data = data_of(event)
                    shown = self._filter(data, decision)
                    body = event if shown is data else with_data(event, shown)
                await self._send({"type": "http.response.body", "body": body, "more_body": True})
        await self._send({"type": "http.response.body", "body": splitter.rest()})

    def _filter(self, message: bytes, decision: Decision) -> bytes:
        group = decision.group
        assert group
        try:
            return filter_tools(message, lambda tool: may_use_tool(group, self._server, tool))
        except Unfilterable as error:
            detail = "its list of tools cannot be read, so none of it is shown"
            raise UpstreamFailed("upstream_bad_answer", detail) from error

    # -- the answer and the record ----------------------------------------------------------------

    async def _start(self, status: int, out: list[Header]) -> None:
        self._started = True
        await self._send({"type": "http.response.start", "status": status, "headers": out})

    def _conclude(self, response: Response, outcome: Outcome, *, sse: bool) -> None:
        record = self._record
        record.error_code, record.detail = outcome.error_code, outcome.detail
        output = outcome.output
        record.output, record.output_bytes, record.output_sha256 = output.text, output.size, output.sha256
        failed = outcome.failed or response.status >= 400
        if self._envelope and self._envelope.kind == "request" and sse and not outcome.answered:
            record.detail = "the stream ended without the answer, which may come on another stream"
        self._finish(
            "error" if failed else "ok", record.reason, detail=record.detail, status_code=response.status
        )

    async def _failed(self, error: UpstreamFailed, decision: Decision, flight: Flight) -> None:
        """The exchange did not come to its end: tell the caller why, if there is still one."""
        if error.reason == "cancelled":
            self._finish("cancelled", error.reason, detail=error.detail)
            return
        status: Status = "failed"
        if flight.forbidden:
            status, decision = "denied", flight.forbidden
            self._record.rule, self._record.revision = decision.rule, decision.revision
        if error.reason in TOKEN_REASONS:
            self._finish(status, error.reason, detail=error.detail, status_code=401)
            if not self._started:
                raise self._lane.doorway.not_admitted(error.detail, self._server) from error
            return
        refusal = self._refusal(error.reason, error.detail, decision)
        self._finish(status, error.reason, detail=refusal.message, status_code=refusal.status)
        await self._refuse(refusal)

    async def _refuse(self, refusal: Refusal, id: bytes | None = None) -> None:
        """Send a refusal, in the form that is still possible."""
        envelope = self._envelope
        id = id or (envelope.id if envelope and envelope.kind == "request" else b"null")
        if not self._started:
            await _answer(self._send, refusal, id)
        # Otherwise the answer breaks off: without its end, no client takes it for whole.

    def _finish(self, status: Status, reason: str, *, detail: str = "", status_code: int = 0) -> None:
        record = self._record
        record.status, record.reason, record.detail = status, reason, detail[:1000]
        record.http_status = status_code or record.http_status
        record.duration_us = self._elapsed_us()
        self._lane.journal.finish(record)

    def _elapsed_us(self) -> int:
        return int((elapsed() - self._began) * 1_000_000)


class _Refused(Exception):
    """Stops a passage. `id` is the request's, where the envelope could not be made; `reason` is for the
    record, where the caller is not told."""

    def __init__(self, refusal: Refusal, id: bytes | None = None, reason: str = "") -> None:
        super().__init__(refusal.reason)
        self.refusal, self.id, self.reason = refusal, id, reason or refusal.reason


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return str(client[0]) if client else ""


def _check_answer(response: Response) -> None:
    """Raise `UpstreamFailed` for an answer that must not be passed on."""
    if response.status == 401:
        raise UpstreamFailed("upstream_unauthorized", "it does not accept the credential stored for it")
    if 300 <= response.status < 400:
        raise UpstreamFailed("upstream_bad_answer", f"it redirects elsewhere (HTTP {response.status})")
    if response.header(b"content-encoding") not in {b"", b"identity"}:
        raise UpstreamFailed("upstream_bad_answer", "it sent an encoded body that was not asked for")


async def _answer(send: Send, refusal: Refusal, id: bytes) -> None:
    body = refusals.body(refusal, id)
    out = [*JSON, (b"content-length", str(len(body)).encode()), *refusal.headers]
    await send({"type": "http.response.start", "status": refusal.status, "headers": out})
    await send({"type": "http.response.body", "body": body})


async def _challenge(send: Send, challenge: bytes) -> None:
    body = b'{"error":"invalid_token","error_description":"Sign in: see WWW-Authenticate"}'
    out = [*JSON, (b"content-length", str(len(body)).encode()), (b"www-authenticate", challenge)]
    await send({"type": "http.response.start", "status": 401, "headers": out})
    await send({"type": "http.response.body", "body": body})
