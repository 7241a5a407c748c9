"""One HTTP exchange of an authenticated caller, from its body to its record.

read → parse → decide → credential → journal → forward → relay → record
"""

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from libs.common.clock import elapsed, iso, now
from libs.common.control.tables import Tables
from libs.common.errors import Unavailable
from libs.common.ids import new_id
from libs.common.journal import Journal, JournalUnavailable
from libs.common.records import CallRecord, Status
from libs.common.tokens import Claims, InvalidToken
from services.gateway import headers, refusals
from services.gateway.asgi import Receive, Scope, Send
from services.gateway.capture import Capture, Outcome, Payload
from services.gateway.connection import Header, UpstreamFailed
from services.gateway.credentials import Opened, Wallet
from services.gateway.doorway import Doorway
from services.gateway.envelope import Envelope, Malformed, check_headers, is_simple, parse
from services.gateway.ladder import Call, Decision, may_use_tool
from services.gateway.lists import Unfilterable, filter_tools, is_filtered
from services.gateway.refusals import Refusal
from services.gateway.relay import Relay, check_answer, is_event_stream
from services.gateway.running import Flight, Running, TooMany
from services.gateway.sessions import Sessions, fingerprint
from services.gateway.settings import GatewaySettings
from services.gateway.upstream import Exchange, Pools, Response, Target, request_head, target_of

METHODS = {"POST", "GET", "DELETE"}
# Refusals of these reasons mean that the token itself no longer holds: the answer is 401, not a verdict.
TOKEN_REASONS = {"token_revoked", "user_unknown", "user_inactive"}


@dataclass(frozen=True, slots=True)
class Shared:
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


_PARSER = ThreadPoolExecutor(1, "parser")


class Gone(Exception):
    """The client went away before its request had come in."""


class _Refused(Exception):
    """Stops a passage. `id` is the request's, where the envelope could not be made; `reason` is for the
    record, where the caller is told less."""

    def __init__(self, refusal: Refusal, id: bytes | None = None, reason: str = "") -> None:
        super().__init__(refusal.reason)
        self.refusal, self.id, self.reason = refusal, id, reason or refusal.reason


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
        claims: Claims,
        address: str,
    ) -> None:
        self._shared, self._receive, self._send = shared, receive, send
        self._server, self._claims = server, claims
        self._method: str = scope["method"]
        self._given: list[Header] = scope["headers"]
        self._headers = dict(self._given)
        self._relay = Relay(send, shared.settings.gateway_list_limit)
        self._began = elapsed()
        self._envelope: Envelope | None = None
        self._capture: Capture | None = None
        self._body = b""
        self._session = self._headers.get(b"mcp-session-id", b"").strip()
        user = shared.tables.users.get(claims.subject)
        self._record = CallRecord(
            id=new_id(),
            time=iso(now()),
            status="denied",
            server=server,
            method=self._method,
            user=claims.subject,
            email=user.email if user else "",
            grant=claims.grant,
            client_id=claims.client_id,
            client_name=claims.client_name,
            address=address,
            session=fingerprint(self._session),
            protocol=self._headers.get(b"mcp-protocol-version", b"").decode("latin-1").strip()[:40],
        )

    async def run(self) -> None:
        """Decide, forward, record. Raises `NotAdmitted` when the token no longer holds."""
        try:
            if self._method not in METHODS:
                raise _Refused(Refusal(405, -32600, "Use POST, GET or DELETE", "method_not_allowed"))
            if self._method == "POST":
                self._decide_early()
                await self._read()
                await self._parse()
            await self._forward(self._decide())
        except _Refused as error:
            refusal = error.refusal
            if error.reason != self._record.reason:
                self._record.rule = ""  # not the group's rule refused it, but what came after
            self._finish("denied", error.reason, refusal.message, refusal.status)
            await self._refuse(refusal, error.id)

    # -- before the decision ----------------------------------------------------------------------

    async def _read(self) -> None:
        """Read the body. Raises `_Refused` when it is too large or encoded."""
        limit = self._shared.settings.gateway_body_limit
        too_large = _Refused(Refusal(413, -32600, f"The body is larger than {limit} bytes", "body_too_large"))
        if not headers.is_plain_json(self._given):
            detail = "Send application/json in UTF-8, without a content encoding"
            raise _Refused(Refusal(415, -32600, detail, "content_type"))
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

    async def _parse(self) -> None:
        """Make the envelope. Raises `_Refused` for what is no single JSON-RPC message."""
        record = self._record
        try:
            if is_simple(self._body):
                self._envelope = envelope = parse(self._body)
            else:  # one at a time, and not on the event loop: nobody's large body delays other people's calls
                loop = asyncio.get_running_loop()
                self._envelope = envelope = await loop.run_in_executor(_PARSER, parse, self._body)
            record.method, record.tool = envelope.method or "response", envelope.name
            self._keep_input(envelope.params)
            check_headers(envelope, self._given)
        except Malformed as error:
            if self._envelope is None:
                self._keep_input(self._body)
            raise _Refused(Refusal(400, error.code, error.detail, error.reason), error.id) from error

    def _keep_input(self, data: bytes) -> None:
        payload = Payload.of(data, self._shared.settings.gateway_record_limit)
        record = self._record
        record.input, record.input_bytes, record.input_sha256 = payload.text, payload.size, payload.sha256

    # -- the decision -----------------------------------------------------------------------------

    @property
    def _call(self) -> Call:
        envelope = self._envelope
        return Call(self._server, envelope.method, envelope.name) if envelope else Call(self._server)

    def _decide_early(self) -> None:
        """Turn away, before the body is read, who would be turned away whatever is in it."""
        decision = self._shared.decide(self._claims, Call(self._server))
        if not decision.allowed and refusals.needs_no_body(decision.reason):
            self._decide()

    def _decide(self) -> Decision:
        """Climb the ladder. Raises `_Refused` with the reason, or `NotAdmitted`."""
        decision = self._shared.decide(self._claims, self._call)
        record = self._record
        record.rule, record.revision, record.reason = decision.rule, decision.revision, decision.reason
        record.group = decision.group.id if decision.group else ""
        if decision.allowed:
            return decision
        if decision.reason in TOKEN_REASONS:
            invalid = InvalidToken(decision.reason)  # type: ignore[arg-type]  # one of its reasons, see above
            raise self._shared.doorway.refuse(invalid, self._server, record.address, self._claims)
        raise _Refused(self._refusal(decision.reason, decision.detail, decision), reason=decision.reason)

    def _decide_again(self, flight: Flight) -> None:
        """At the last moment before sending: the lease may have run out while a connection was made."""
        decision = self._shared.decide(flight.claims, flight.call)
        if not decision.allowed:
            flight.forbidden = decision
            raise UpstreamFailed(decision.reason, decision.detail)

    def _refusal(self, reason: str, detail: str, decision: Decision) -> Refusal:
        answered = self._envelope is not None and self._envelope.kind == "request"
        return refusals.refusal(
            reason, self._server, detail, rule=decision.rule, revision=decision.revision, answered=answered
        )

    # -- forwarding -------------------------------------------------------------------------------

    async def _forward(self, decision: Decision) -> None:
        assert decision.server
        target = target_of(decision.server.url)
        exchange = Exchange(self._shared.pools.pool(target.origin))
        flight = Flight(self._claims, self._call, exchange)
        try:
            # From here on a change that forbids the call ends it, however far it has come.
            with self._shared.running.carry(flight), contextlib.closing(_Watch(exchange)) as watch:
                session = self._upstream_session(decision)
                credential = await self._credential(decision)
                await self._admit(decision)
                watch.begin(self._receive)
                await self._exchange(flight, decision, target, session, credential)
        except UpstreamFailed as error:
            await self._failed(error, decision, flight)
        except TooMany:
            detail = f"you have {self._shared.settings.gateway_user_concurrency} calls and streams open"
            raise _Refused(self._refusal("too_many_calls", detail, decision)) from None
        finally:
            if self._record.status == "admitted":
                self._finish("failed", "interrupted", "the gateway stopped, or failed; see its log")
            exchange.release()

    def _upstream_session(self, decision: Decision) -> bytes:
        if not self._session:
            return b""
        session = self._shared.sessions.unwrap(self._session, self._server, self._claims.subject)
        if session is None:
            raise _Refused(self._refusal("session_foreign", "there is no such session", decision))
        return session

    async def _credential(self, decision: Decision) -> Opened:
        held = self._shared.wallet.held(decision.credential)
        if held is not None:
            return held
        try:
            return await self._shared.wallet.open(decision.credential)
        except Unavailable as error:
            raise _Refused(self._refusal("credential_unavailable", error.detail, decision)) from error

    async def _admit(self, decision: Decision) -> None:
        """No record, no call."""
        self._record.status = "admitted"
        try:
            await self._shared.journal.admit(self._record)
        except JournalUnavailable as error:
            self._record.status = "denied"
            raise _Refused(self._refusal("journal_unavailable", error.detail, decision)) from error

    async def _exchange(
        self, flight: Flight, decision: Decision, target: Target, session: bytes, credential: Opened
    ) -> None:
        server = decision.server
        assert server
        has_body = self._method == "POST"
        passed = headers.upstream(self._given, credential.headers, session, has_body=has_body)
        response = await flight.exchange.run(
            request_head(self._method.encode(), target, passed, len(self._body) if has_body else None),
            self._body,
            server.connect_timeout,
            server.response_timeout,
            partial(self._decide_again, flight),
        )
        self._record.first_byte_us = self._elapsed_us()
        check_answer(response)
        if credential.redactor:
            response.redact(credential.redactor)
        await self._pass_on(response)

    async def _pass_on(self, response: Response) -> None:
        sse = is_event_stream(response)
        id = self._envelope.id if self._envelope else b"null"
        capture = self._capture = Capture(id, self._shared.settings.gateway_record_limit, sse=sse)
        out = self._answer_headers(response, sse=sse)
        # A stream without a request may replay what belongs to an earlier one.
        lists = is_filtered(self._envelope) if self._envelope else sse
        if lists and sse:
            await self._relay.list_events(response, out, capture, self._shown)
        elif lists and response.status < 300:
            await self._relay.list_message(response, out, capture, self._shown)
        else:
            await self._relay.as_it_comes(response, out, capture)
        self._conclude(response.status, capture.end(), sse=sse)

    def _answer_headers(self, response: Response, *, sse: bool) -> list[Header]:
        out = headers.downstream(response.headers)
        if session := response.header(b"mcp-session-id"):
            wrapped = self._shared.sessions.wrap(session, self._server, self._claims.subject)
            out.append((b"mcp-session-id", wrapped))
            self._record.session = fingerprint(wrapped)
        if sse:
            out.append((b"x-accel-buffering", b"no"))
        return out

    def _shown(self, message: bytes) -> bytes:
        """`message` without the tools that the caller's group, as it is now, may not use."""
        group = self._shared.tables.group_of(self._claims.subject)
        try:
            return filter_tools(message, lambda tool: may_use_tool(group, self._server, tool))
        except Unfilterable as error:
            detail = "its list of tools cannot be read, so none of it is shown"
            raise UpstreamFailed("upstream_bad_answer", detail) from error

    # -- the outcome ------------------------------------------------------------------------------

    def _conclude(self, http_status: int, outcome: Outcome, *, sse: bool) -> None:
        record, output = self._record, outcome.output
        record.error_code = outcome.error_code
        record.output, record.output_bytes, record.output_sha256 = output.text, output.size, output.sha256
        detail = outcome.detail
        if self._envelope and self._envelope.kind == "request" and sse and not outcome.answered:
            detail = "the stream ended without the answer, which may come on another stream"
        failed = outcome.failed or http_status >= 400
        self._finish("error" if failed else "ok", record.reason, detail, http_status)

    async def _failed(self, error: UpstreamFailed, decision: Decision, flight: Flight) -> None:
        """The exchange did not come to its end: tell the caller why, if there is still one."""
        if error.reason == "cancelled":
            self._cancelled(error)
            return
        status: Status = "failed"
        if flight.forbidden:
            status, decision = "denied", flight.forbidden
            self._record.rule, self._record.revision = decision.rule, decision.revision
        if error.reason in TOKEN_REASONS:
            self._finish(status, error.reason, error.detail, 401)
            if not self._relay.started:
                raise self._shared.doorway.not_admitted(error.detail, self._server) from error
            return
        refusal = self._refusal(error.reason, error.detail, decision)
        self._finish(status, error.reason, refusal.message, refusal.status)
        await self._refuse(refusal)

    def _cancelled(self, error: UpstreamFailed) -> None:
        if self._capture and self._capture.outcome.answered:
            # The client has its answer, and did not wait for the stream to end.
            self._conclude(200, self._capture.outcome, sse=True)
        else:
            self._finish("cancelled", error.reason, error.detail)

    async def _refuse(self, refusal: Refusal, id: bytes | None = None) -> None:
        """Send a refusal. An answer that has begun breaks off: without its end, nobody takes it for whole."""
        envelope = self._envelope
        if not self._relay.started:
            id = id or (envelope.id if envelope and envelope.kind == "request" else b"null")
            await refusals.answer(self._send, refusal, id)

    def _finish(self, status: Status, reason: str, detail: str = "", http_status: int = 0) -> None:
        record = self._record
        record.status, record.reason, record.detail = status, reason, detail[:1000]
        record.http_status = http_status
        record.duration_us = self._elapsed_us()
        self._shared.journal.finish(record)

    def _elapsed_us(self) -> int:
        return int((elapsed() - self._began) * 1_000_000)


class _Watch:
    """Ends an exchange when the client goes away: for MCP that is how a call is cancelled."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._task: asyncio.Task[None] | None = None

    def begin(self, receive: Receive) -> None:
        self._task = asyncio.create_task(self._run(receive))

    def close(self) -> None:
        if self._task:
            self._task.cancel()

    async def _run(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        self._exchange.abort(UpstreamFailed("cancelled", "the client went away"))
