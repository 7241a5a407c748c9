"""One request of a known caller, from its decision to its record, by whatever lane it travels.

decide → credential → admit (quotas, journal) → forward, which is the lane's → conclude or fail (journal)
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from libs.common.clock import elapsed, iso, now
from libs.common.control.tables import Tables
from libs.common.decision.ladder import Call, Decision, may_use, moved
from libs.common.errors import Unavailable
from libs.common.ids import new_id
from libs.common.journal import Journal, JournalUnavailable
from libs.common.records import CallRecord, Status
from libs.common.tokens import Claims, InvalidToken
from services.gateway import elicitation, refusals
from services.gateway.authentication import Authenticator
from services.gateway.capture import Outcome, Payload
from services.gateway.connection import UpstreamFailed
from services.gateway.credentials import NeedsAttention, Opened, Wallet
from services.gateway.envelope import Envelope
from services.gateway.listen import Listen
from services.gateway.lists import Unfilterable, as_private, filter_lists, is_personal
from services.gateway.pins.pins import Pins
from services.gateway.pool import Pools
from services.gateway.quotas.admission import Counted, NotCounted, Quotas
from services.gateway.quotas.limits import Use
from services.gateway.refusals import Refusal
from services.gateway.running import Flight, Running, Stoppable, TooMany, moved_away
from services.gateway.sessions import Sessions, fingerprint, opens_urls
from services.gateway.settings import GatewaySettings

# Refusals of these reasons mean that the token itself no longer holds: the answer is 401, not a verdict.
TOKEN_REASONS = {"token_revoked", "user_unknown", "user_inactive"}


@dataclass(frozen=True, slots=True)
class Shared:
    """What all requests at a replica share."""

    settings: GatewaySettings
    tables: Tables
    authenticator: Authenticator
    decide: Callable[[Claims, Call], Decision]
    wallet: Wallet
    sessions: Sessions
    journal: Journal
    pools: Pools
    running: Running
    quotas: Quotas
    pins: Pins


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose request it is, as its record tells. `protocol` is the MCP revision asked for."""

    claims: Claims
    address: str = ""
    protocol: str = ""
    session: bytes = b""


class Refused(Exception):
    """Stops a request. `id` is its id (raw JSON), where the envelope could not be made; `reason` is for the
    record, where the caller is told less."""

    def __init__(self, refusal: Refusal, id: bytes | None = None, reason: str = "") -> None:
        super().__init__(refusal.reason)
        self.refusal, self.id, self.reason = refusal, id, reason or refusal.reason


class Ticket:
    """A request to `server`. `method` is that of HTTP until the envelope is known."""

    def __init__(self, shared: Shared, caller: Caller, server: str, method: str) -> None:
        self._shared, self._server, self._caller = shared, server, caller
        self._began = elapsed()
        self.envelope: Envelope | None = None
        self.listen: Listen | None = None  # what is to be said on it, if it is a lasting stream in flight
        claims = caller.claims
        user = shared.tables.users.get(claims.subject)
        self.record = CallRecord(
            id=new_id(),
            time=iso(now()),
            status="denied",
            server=server,
            method=method,
            user=claims.subject,
            email=user.email if user else "",
            grant=claims.grant,
            client_id=claims.client_id,
            client_name=claims.client_name,
            address=caller.address,
            session=fingerprint(caller.session),
            protocol=caller.protocol[:40],
        )

    def take(self, envelope: Envelope) -> None:
        """What is asked for."""
        self.envelope = envelope
        self.record.method, self.record.tool = envelope.method or "response", envelope.name
        self.keep_input(envelope.params)

    def keep_input(self, data: bytes) -> None:
        payload = Payload.of(data, self._shared.settings.gateway_record_limit)
        record = self.record
        record.input, record.input_bytes, record.input_sha256 = payload.text, payload.size, payload.sha256

    @property
    def id(self) -> bytes:
        """The id of the request as raw JSON; `null` for what awaits no answer."""
        return self.envelope.id if self.envelope and self.envelope.kind == "request" else b"null"

    @property
    def is_lasting(self) -> bool:
        """Whether a stream is asked for that stays open until somebody closes it."""
        if self.envelope is None:
            return self.record.method == "GET"
        return self.envelope.kind == "request" and self.envelope.method == "subscriptions/listen"

    # -- the decision -----------------------------------------------------------------------------

    @property
    def call(self) -> Call:
        envelope = self.envelope
        if envelope is None:
            return Call(self._server)
        return Call(self._server, envelope.method, envelope.subjects, envelope.arguments)

    def decide_early(self) -> None:
        """Turn away, before the body is read, who would be turned away whatever is in it."""
        decision = self._shared.decide(self._caller.claims, Call(self._server))
        if not decision.allowed and refusals.needs_no_body(decision.reason):
            self.decide()

    async def connected(self) -> None:
        """Where somebody has just agreed to connect a credential: wait until they have, but not for ever.
        Raises `Refused` when too many of their calls do."""
        shared, claims, call = self._shared, self._caller.claims, self.call
        if not elicitation.accepted(self.envelope):
            return
        try:
            with suppress(TimeoutError), shared.running.receive(claims.subject):
                async with asyncio.timeout(elicitation.WITHIN):
                    while shared.decide(claims, call).reason in refusals.CONNECT_FIRST:
                        await shared.wallet.change()
        except TooMany:
            raise self._too_many(shared.decide(claims, call)) from None

    def decide(self) -> Decision:
        """Climb the ladder. Raises `Refused` with the reason, or `Unauthenticated`."""
        decision = self._shared.decide(self._caller.claims, self.call)
        record = self.record
        record.rule, record.revision, record.reason = decision.rule, decision.revision, decision.reason
        record.group = decision.group.id if decision.group else ""
        if decision.allowed:
            return decision
        if decision.reason in TOKEN_REASONS:
            invalid = InvalidToken(decision.reason)  # type: ignore[arg-type]  # one of its reasons, see above
            raise self._shared.authenticator.refuse(
                invalid, self._server, record.address, self._caller.claims
            )
        raise self.refused(decision.reason, decision.detail, decision)

    def decide_again(self, flight: Flight) -> None:
        """At the last moment before sending: the lease may have run out while a connection was made."""
        decision = self._shared.decide(flight.claims, flight.call)
        if not decision.allowed:
            flight.forbidden = decision
            raise UpstreamFailed(decision.reason, decision.detail)
        if flight.decision and moved(flight.decision, decision):
            raise moved_away()

    def refused(self, reason: str, detail: str, decision: Decision) -> Refused:
        """The refusal for `reason`, to be raised."""
        return Refused(self._refusal(reason, detail, decision), reason=reason)

    def _refusal(
        self, reason: str, detail: str, decision: Decision, retry_after: int | None = None
    ) -> Refusal:
        answered = self.envelope is not None and self.envelope.kind == "request"
        rule, revision = decision.rule, decision.revision
        keyed = decision.server is not None and decision.server.auth != "none"
        return refusals.refusal(
            reason,
            self._server,
            detail,
            rule=rule,
            revision=revision,
            answered=answered,
            retry_after=retry_after,
            origin=self._shared.settings.public_url if keyed else "",
            manner=self._manner if reason in refusals.CONNECT_FIRST else None,
        )

    @property
    def _manner(self) -> elicitation.Manner | None:
        caller = self._caller
        can = caller.protocol == elicitation.SINCE and opens_urls(caller.session)
        return elicitation.manner_for(self.envelope, opens_urls=can)

    # -- on its way -------------------------------------------------------------------------------

    @contextmanager
    def in_flight(self, decision: Decision, carrier: Stoppable) -> Iterator[Flight]:
        """From here on a change that forbids the call ends it, however far it has come, and one that concerns
        what the caller sees reaches `listen`. Raises `Refused`."""
        flight = Flight(self._caller.claims, self.call, carrier, self.is_lasting, decision)
        if self.is_lasting:
            asked = (self.envelope.id, self.envelope.params) if self.envelope else ()
            self.listen = Listen(decision, *asked)
            flight.on_change = self.listen.noticed
        try:
            with self._shared.running.carry(flight):
                yield flight
        except TooMany:
            raise self._too_many(decision) from None
        finally:
            if self.record.status == "admitted":
                self.finish("failed", "interrupted", "the gateway stopped, or failed; see its log")

    def _too_many(self, decision: Decision) -> Refused:
        settings = self._shared.settings
        if self.is_lasting:
            detail = f"you have {settings.gateway_user_streams} streams open"
            return self.refused("too_many_streams", detail, decision)
        detail = f"you have {settings.gateway_user_concurrency} calls running"
        return self.refused("too_many_calls", detail, decision)

    async def credential(self, decision: Decision) -> Opened:
        """The service credential to add. Raises `Refused`."""
        held = self._shared.wallet.held(decision.credential)
        if held is not None:
            return held
        try:
            return await self._shared.wallet.open(decision.credential)
        except Unavailable as error:
            attention = isinstance(error, NeedsAttention)
            reason = "credential_attention" if attention else "credential_unavailable"
            raise self.refused(reason, error.detail, decision) from error

    async def admit(self, decision: Decision) -> None:
        """Over quota, no call; no record, no call. Raises `Refused`."""
        counted = await self._count(decision)
        self.record.status = "admitted"
        try:
            await self._shared.journal.admit(self.record)
        except JournalUnavailable as error:
            counted.give_back()
            self.record.status = "denied"
            raise self.refused("journal_unavailable", error.detail, decision) from error

    async def _count(self, decision: Decision) -> Counted:
        """Count a call of a tool against its quotas. Raises `Refused`."""
        try:
            return await self._shared.quotas.count(self._uses(decision))
        except NotCounted as error:
            self.record.reason, self.record.rule = error.reason, error.key
            by_quota = replace(decision, rule=error.key)
            raise Refused(self._refusal(error.reason, error.detail, by_quota, error.retry_after)) from None

    def _uses(self, decision: Decision) -> list[Use]:
        if not decision.server or self.envelope is None or self.envelope.method != "tools/call":
            return []
        user, group = self.record.user, self.record.group
        use = self._shared.quotas.use
        return [use(user, group, decision.server.slug, tool.name) for tool in self.envelope.subjects]

    def shown(self, message: bytes) -> bytes:
        """`message` without what the caller's group, as it is now, may not use, and for nobody else's cache.

        Raises `UpstreamFailed`.
        """
        tables, envelope, pins = self._shared.tables, self.envelope, self._shared.pins
        group = tables.group_of(self._caller.claims.subject)
        self.heard(message)
        try:
            if envelope and is_personal(envelope):
                return _private(message)
            modern = envelope is not None and envelope.modern
            allowed = may_use(tables, group, self._server, pins.seen)
            return filter_lists(message, allowed, pins.watching(self._server), modern=modern)
        except Unfilterable as error:
            detail = "its answer cannot be read, so none of it is shown"
            raise UpstreamFailed("upstream_bad_answer", detail) from error

    def heard(self, message: bytes) -> None:
        """The server says `message` on the way."""
        self._shared.pins.heard(self._server, message)

    # -- the outcome ------------------------------------------------------------------------------

    def answering(self) -> None:
        """The answer has begun."""
        self.record.first_byte_us = self._elapsed_us()

    def conclude(self, http_status: int, outcome: Outcome, *, sse: bool) -> None:
        """The exchange came to its end."""
        record, output = self.record, outcome.output
        record.error_code = outcome.error_code
        record.output, record.output_bytes, record.output_sha256 = output.text, output.size, output.sha256
        detail = outcome.detail
        if outcome.tools_changed:
            self._shared.pins.said_changed(self._server)
        if self.envelope and self.envelope.kind == "request" and sse and not outcome.answered:
            detail = "the stream ended without the answer, which may come on another stream"
        failed = outcome.failed or http_status >= 400
        self.finish("error" if failed else "ok", record.reason, detail, http_status)

    def fail(self, error: UpstreamFailed, decision: Decision, flight: Flight) -> Refusal:
        """It did not come to its end: what to tell the caller.

        Raises `Unauthenticated` when the token no longer holds.
        """
        status: Status = "failed"
        if flight.forbidden:
            status, decision = "denied", flight.forbidden
            self.record.rule, self.record.revision = decision.rule, decision.revision
        if error.reason in TOKEN_REASONS:
            self.finish(status, error.reason, error.detail, 401)
            raise self._shared.authenticator.unauthenticated(error.detail) from error
        refusal = self._refusal(error.reason, error.detail, decision)
        self.finish(status, error.reason, refusal.message, refusal.status)
        return refusal

    def deny(self, error: Refused) -> None:
        """It was refused before it was forwarded."""
        if error.reason != self.record.reason:
            self.record.rule = ""  # not the group's rule refused it, but what came after
        self.finish("denied", error.reason, error.refusal.message, error.refusal.status)

    def finish(self, status: Status, reason: str, detail: str = "", http_status: int = 0) -> None:
        """The last line on it in the journal."""
        record = self.record
        record.status, record.reason, record.detail = status, reason, detail[:1000]
        record.http_status = http_status
        record.duration_us = self._elapsed_us()
        self._shared.journal.finish(record)

    def _elapsed_us(self) -> int:
        return int((elapsed() - self._began) * 1_000_000)


def _private(message: bytes) -> bytes:
    """For the caller's own cache only, if it can be read: it was decided on, and hides nothing."""
    try:
        return as_private(message)
    except Unfilterable:
        return message
