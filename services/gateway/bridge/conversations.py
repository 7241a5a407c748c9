"""A client's session with one server: each message in it is decided, journaled, passed on and recorded."""

import asyncio
import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, TypeAlias

import structlog

from libs.common.decision.ladder import Decision
from libs.common.lifecycle import Tasks
from services.gateway import messages, refusals
from services.gateway.authentication import Unauthenticated
from services.gateway.bridge.governed import Failed, conclude
from services.gateway.bridge.upstreams import Connect, Link
from services.gateway.connection import UpstreamFailed
from services.gateway.credentials import Opened
from services.gateway.links.port import Check, always
from services.gateway.messages import NotAMessage
from services.gateway.protocol import CANCELLED, INVALID_REQUEST
from services.gateway.refusals import Refusal
from services.gateway.running import Errand, Flight, Stoppable
from services.gateway.ticket import Refused, Shared, Ticket

log = structlog.get_logger(__name__)

Key: TypeAlias = str | int | float | None
ENDED = UpstreamFailed("cancelled", "the client ended the session")
ID_IN_USE = Refusal(400, INVALID_REQUEST, "A request with this id waits for its answer", "id_in_use")
MOST_GIVEN_UP = 1024  # requests of one session


class Outlet(Protocol):
    """Where messages go that are for the client. Nothing here blocks."""

    def answer(self, key: Key, message: bytes, status: int = 200) -> None:
        """The response to the request `key`; `status` is for where the answer is all of an HTTP answer."""

    def drop(self, key: Key) -> None:
        """The request `key` gets no response."""

    def message(self, message: bytes) -> None:
        """A request or notification of the server."""

    def end(self) -> None:
        """Nothing more comes."""


class Conversation(Protocol):
    """What a front needs of a session. Made with an `Outlet`."""

    async def take(self, ticket: Ticket, message: bytes) -> None:
        """A message of the client, whose envelope `ticket` has taken. Returns when it is accepted.

        Raises `Refused` if it was not, `Failed` if it was and came to nothing, and `Unauthenticated`.
        """

    async def close(self, failure: UpstreamFailed) -> None:
        """End it; what waits for an answer ends with `failure`. May be called twice."""


def key_of(id: bytes) -> Key:
    """The id of a message (raw JSON), so that it is the same however it is written; None for what is none."""
    try:
        key = json.loads(id)
    except messages.UNREADABLE:
        return None
    return key if isinstance(key, str | int | float) else None


@dataclass(eq=False, slots=True)
class Pending(Stoppable):
    """A request that waits for its response. `landing` takes it out of what is in flight."""

    key: Key
    ticket: Ticket
    decision: Decision
    stop: "Callable[[Pending, UpstreamFailed], None]"
    landing: ExitStack = field(default_factory=ExitStack)
    flight: Flight | None = None

    def abort(self, failure: UpstreamFailed) -> None:
        self.stop(self, failure)


class GovernedConversation(Conversation):
    """A conversation with one server. It connects with the first message.

    `on_end` is called when the upstream, or a broken promise of it, ends the conversation.
    """

    def __init__(
        self, shared: Shared, connect: Connect, outlet: Outlet, on_end: Callable[[UpstreamFailed], None]
    ) -> None:
        self._shared, self._connect, self._outlet, self._on_end = shared, connect, outlet, on_end
        self._server = ""
        self._link: Link | None = None
        self._opening = asyncio.Lock()
        self._pending: dict[Key, Pending] = {}
        # Answered to nobody, and perhaps still by the upstream: with its id another request would get that.
        self._given_up: set[Key] = set()
        self._tasks = Tasks()
        self._over: UpstreamFailed | None = None

    @property
    def busy(self) -> bool:
        """Whether a request waits for its response."""
        return bool(self._pending)

    # -- from the client --------------------------------------------------------------------------

    async def take(self, ticket: Ticket, message: bytes) -> None:
        assert ticket.envelope
        decision = ticket.decide()
        if ticket.envelope.kind == "request":
            await self._ask(ticket, decision, message)
        else:
            await self._tell(ticket, decision, message)

    async def _ask(self, ticket: Ticket, decision: Decision, message: bytes) -> None:
        """Admit a request and send it in the background, since some upstreams accept it by answering it."""
        pending = Pending(key_of(ticket.id), ticket, decision, self._stop)
        if pending.key in self._pending or pending.key in self._given_up:
            raise Refused(ID_IN_USE)
        self._pending[pending.key] = pending
        try:
            flight = pending.flight = pending.landing.enter_context(ticket.in_flight(decision, pending))
            credential = await ticket.credential(decision)
            await ticket.admit(decision)
        except BaseException:
            self._land(pending)
            raise
        check = partial(ticket.decide_again, flight)
        self._tasks.spawn(self._send_request(pending, message, credential, check))

    async def _send_request(self, pending: Pending, message: bytes, credential: Opened, check: Check) -> None:
        try:
            if self._pending.get(pending.key) is pending:
                link = await self._open(pending.decision, credential)
                await link.session.send(message, check)
        except UpstreamFailed as failure:
            self._fail(pending, failure)

    async def _tell(self, ticket: Ticket, decision: Decision, message: bytes) -> None:
        """Pass on a notification, or the answer to a request of the server."""
        assert ticket.envelope
        if self._link is None:  # nothing was said yet that it could be about
            raise Refused(
                Refusal(400, INVALID_REQUEST, "The session begins with initialize", "not_initialized")
            )
        sending = Errand()
        with ticket.in_flight(decision, sending) as flight:
            credential = await ticket.credential(decision)
            await ticket.admit(decision)
            try:
                link = await self._open(decision, credential)
                check = partial(ticket.decide_again, flight)
                await sending.run(link.session.send(message, check))
            except UpstreamFailed as failure:
                raise Failed(ticket.fail(failure, decision, flight)) from failure
            ticket.finish("ok", ticket.record.reason, http_status=202)
        if ticket.envelope.method == CANCELLED:
            self._give_up(ticket.envelope.params)

    def _give_up(self, params: bytes) -> None:
        """The client has cancelled a request: it gets no answer any more."""
        key = cancelled_by(params)
        if pending := self._pending.get(key):
            pending.ticket.finish("cancelled", "cancelled", "the client cancelled it")
            self._land(pending)
            self._outlet.drop(key)
            self._expect_nothing(key)

    def _expect_nothing(self, key: Key) -> None:
        self._given_up.add(key)
        if len(self._given_up) > MOST_GIVEN_UP:
            detail = f"{MOST_GIVEN_UP} requests of the session were given up, and it answered none of them"
            self._on_closed(UpstreamFailed("upstream_bad_answer", detail))

    async def _open(self, decision: Decision, credential: Opened) -> Link:
        """The session with the upstream, begun if need be, with the credential as it is now."""
        async with self._opening:
            if self._link is None and self._over is None:
                assert decision.server
                self._server = decision.server.slug
                callbacks = self._on_message, self._on_closed, self._on_failed
                link = await self._connect(decision, credential, *callbacks)
                try:
                    await link.session.start()
                except BaseException:
                    await link.session.close()
                    raise
                self._link = link
            if self._over:
                raise self._over
            assert self._link
            self._link.renew(decision, credential)
            return self._link

    # -- from the upstream ------------------------------------------------------------------------

    def _on_message(self, message: bytes) -> None:
        try:
            read = messages.read(message)
        except NotAMessage as error:
            self._on_closed(UpstreamFailed("upstream_bad_answer", f"it sent what is no message: {error}"))
            return
        if read.kind != "response":
            self._shared.pins.heard(self._server, message)
            self._outlet.message(message)
            return
        key = key_of(read.id)
        self._given_up.discard(key)
        if pending := self._pending.get(key):
            self._answered(pending, message)

    def _answered(self, pending: Pending, message: bytes) -> None:
        try:
            visible = conclude(pending.ticket, message, self._shared.settings.gateway_record_limit)
        except UpstreamFailed as failure:
            self._fail(pending, failure)
            return
        self._land(pending)
        self._outlet.answer(pending.key, visible)

    def _on_failed(self, id: bytes, failure: UpstreamFailed) -> None:
        if pending := self._pending.get(key_of(id)):
            self._fail(pending, failure)

    def _on_closed(self, failure: UpstreamFailed) -> None:
        if self._over:
            return
        self._over = failure
        for pending in list(self._pending.values()):
            self._fail(pending, failure)
        self._outlet.end()
        self._on_end(failure)

    # -- the end ----------------------------------------------------------------------------------

    def _fail(self, pending: Pending, failure: UpstreamFailed) -> None:
        """A request that was admitted came to nothing."""
        if self._pending.get(pending.key) is not pending:
            return
        assert pending.flight
        if failure.reason == "cancelled":
            pending.ticket.finish("cancelled", failure.reason, failure.detail)
            self._land(pending)
            self._outlet.drop(pending.key)
            return
        try:
            refusal = pending.ticket.fail(failure, pending.decision, pending.flight)
        except Unauthenticated:
            refusal = Refusal(401, refusals.DENIED, f"Lockgate: {failure.detail}", failure.reason)
        self._land(pending)
        self._outlet.answer(pending.key, refusals.body(refusal, pending.ticket.id), refusal.status)

    def _stop(self, pending: Pending, failure: UpstreamFailed) -> None:
        """A change forbids a request that runs: the upstream is told to stop it."""
        if pending.ticket.record.status == "admitted":
            self._fail(pending, failure)
            self._expect_nothing(pending.key)
            self._tasks.spawn(self._cancel_upstream(pending.ticket.id, failure.detail))

    async def _cancel_upstream(self, id: bytes, reason: str) -> None:
        if self._link is None:
            return
        try:
            await self._link.session.send(messages.cancelled(id, reason), always)
        except UpstreamFailed as failure:
            log.info("upstream_not_told_of_cancellation", reason=failure.reason)

    def _land(self, pending: Pending) -> None:
        self._pending.pop(pending.key, None)
        pending.landing.close()

    async def close(self, failure: UpstreamFailed) -> None:
        self._over = self._over or failure
        for pending in list(self._pending.values()):
            if pending.ticket.record.status == "admitted":  # what is not yet, finds out by itself
                self._fail(pending, failure)
        self._outlet.end()
        await self._tasks.cancel()
        link, self._link = self._link, None
        if link:
            await link.session.close()


def refusal_of(failure: UpstreamFailed) -> Refusal:
    """For what no ticket knows of."""
    status = 401 if failure.reason == "token_revoked" else 502
    return Refusal(status, refusals.UPSTREAM_FAILED, f"Lockgate: {failure.detail}", failure.reason)


def cancelled_by(params: bytes) -> Key:
    """The request that `notifications/cancelled` with these params is about."""
    try:
        return key_of(bytes(messages.members(params).get("requestId", b"")))
    except NotAMessage:
        return None
