"""Endpoints under governance: each request is decided, journaled, passed on and recorded."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

from libs.common.decision.ladder import Decision
from libs.common.lifecycle import cancel
from services.gateway import messages, refusals
from services.gateway.authentication import Unauthenticated
from services.gateway.bridge.upstreams import Upstreams
from services.gateway.capture import Capture
from services.gateway.connection import UpstreamFailed
from services.gateway.credentials import Opened
from services.gateway.envelope import Malformed, is_simple, parse
from services.gateway.links.port import Check, Emit, Endpoint, always
from services.gateway.lists import is_filtered, is_personal
from services.gateway.refusals import Refusal
from services.gateway.running import Errand, Flight
from services.gateway.ticket import Caller, Refused, Shared, Ticket

T = TypeVar("T")


class Failed(Exception):
    """A call that was admitted came to nothing, and is recorded so; `refusal` is for the caller."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal


class Governor:
    """Carries single requests to the servers of this replica, each under its ticket."""

    def __init__(self, shared: Shared, upstreams: Upstreams) -> None:
        self._shared, self._upstreams = shared, upstreams

    def endpoint_for(self, caller: Caller, server: str) -> Endpoint:
        """What the caller may use of `server`. See the package for what it promises."""
        return GovernedEndpoint(self._shared, self, caller, server)

    async def request(
        self, caller: Caller, ticket: Ticket, message: bytes, emit: Emit, check: Check = always
    ) -> bytes:
        """The response to `message`, whose envelope `ticket` has taken. Cancelling it cancels the request.

        Raises `Refused` before the call was admitted, `Failed` after it, and `Unauthenticated`.
        """

        async def ask(endpoint: Endpoint, allowed: Check) -> bytes:
            def heard(message: bytes) -> None:
                ticket.heard(message)
                emit(message)

            async with _listening(ticket, heard) as emitted:
                response = await endpoint.request(message, emitted, allowed)
            return conclude(ticket, response, self._shared.settings.gateway_record_limit)

        return await self._carry(caller, ticket, check, ask)

    async def notify(self, caller: Caller, ticket: Ticket, message: bytes, check: Check = always) -> None:
        """Pass on a notification. Raises as `request` does."""

        async def tell(endpoint: Endpoint, allowed: Check) -> None:
            await endpoint.notify(message, allowed)
            ticket.finish("ok", ticket.record.reason, http_status=202)

        await self._carry(caller, ticket, check, tell)

    async def _carry(
        self, caller: Caller, ticket: Ticket, check: Check, act: Callable[[Endpoint, Check], Awaitable[T]]
    ) -> T:
        decision, errand = ticket.decide(), Errand()
        with ticket.in_flight(decision, errand) as flight:
            credential = await ticket.credential(decision)
            await ticket.admit(decision)
            allowed = partial(_check_both, check, ticket, flight)
            try:
                return await errand.run(self._reach(caller, decision, credential, allowed, act))
            except UpstreamFailed as failure:
                if failure.reason == "cancelled":
                    # Whoever waited is gone, so it does not matter what is said.
                    ticket.finish("cancelled", failure.reason, failure.detail)
                    raise Failed(
                        Refusal(502, refusals.UPSTREAM_FAILED, failure.detail, "cancelled")
                    ) from failure
                raise Failed(ticket.fail(failure, decision, flight)) from failure
            except asyncio.CancelledError:
                if ticket.record.status == "admitted":
                    ticket.finish("cancelled", "cancelled", "it was given up before it was answered")
                raise

    async def _reach(
        self,
        caller: Caller,
        decision: Decision,
        credential: Opened,
        allowed: Check,
        act: Callable[[Endpoint, Check], Awaitable[T]],
    ) -> T:
        allowed()  # the journal may have taken its time, and to connect tells the upstream something already
        async with self._upstreams.endpoint(caller, decision, credential) as endpoint:
            return await act(endpoint, allowed)


def conclude(ticket: Ticket, response: bytes, limit: int) -> bytes:
    """The end of a request: its `response` as the caller may see it, recorded up to `limit` bytes.

    Raises `UpstreamFailed` when it cannot be shown.
    """
    ticket.answering()
    envelope = ticket.envelope
    assert envelope
    visible = ticket.shown(response) if is_filtered(envelope) or is_personal(envelope) else response
    capture = Capture(messages.read(visible).id, limit, sse=False)
    capture.feed(visible)
    ticket.conclude(200, capture.end(), sse=False)
    return visible


@asynccontextmanager
async def _listening(ticket: Ticket, emit: Emit) -> AsyncIterator[Emit]:
    """`emit`, and on a stream of `subscriptions/listen` what the gateway itself has to say between."""
    listen = ticket.listen
    if listen is None:
        yield emit
        return

    def seen(message: bytes) -> None:
        emit(message)
        listen.saw(message)

    async def speak() -> None:
        while True:
            await listen.wake.wait()
            for message in listen.due():
                emit(message)

    speaking = asyncio.ensure_future(speak())
    try:
        yield seen
    finally:
        await cancel(speaking)


def _check_both(check: Check, ticket: Ticket, flight: Flight) -> None:
    check()
    ticket.decide_again(flight)


class GovernedEndpoint(Endpoint):
    """One caller's endpoint of one server."""

    def __init__(self, shared: Shared, governor: Governor, caller: Caller, server: str) -> None:
        self._shared, self._governor = shared, governor
        self._caller, self._server = caller, server

    async def request(self, message: bytes, emit: Emit, check: Check) -> bytes:
        ticket = Ticket(self._shared, self._caller, self._server, "POST")
        try:
            await _take(ticket, message)
            await ticket.connected()
            return await self._governor.request(self._caller, ticket, message, emit, check)
        except Refused as error:
            ticket.deny(error)
            return refusals.body(error.refusal, error.id or ticket.id)
        except Failed as error:
            return refusals.body(error.refusal, ticket.id)
        except Unauthenticated as error:
            return refusals.body(signed_out(error), ticket.id)

    async def notify(self, message: bytes, check: Check) -> None:
        ticket = Ticket(self._shared, self._caller, self._server, "POST")
        try:
            await _take(ticket, message)
            await self._governor.notify(self._caller, ticket, message, check)
        except Refused as error:
            ticket.deny(error)
            raise UpstreamFailed(error.refusal.reason, error.refusal.message) from error
        except Failed as error:
            raise UpstreamFailed(error.refusal.reason, error.refusal.message) from error
        except Unauthenticated as error:
            raise UpstreamFailed("upstream_unauthorized", error.description) from error

    async def close(self) -> None:
        """Connections are held by the replica, and let go when nobody uses them."""


def signed_out(error: Unauthenticated) -> Refusal:
    """For where it is too late for a 401."""
    return Refusal(401, refusals.DENIED, f"Lockgate: {error.description}", "token_revoked")


async def _take(ticket: Ticket, message: bytes) -> None:
    try:
        ticket.take(parse(message) if is_simple(message) else await asyncio.to_thread(parse, message))
    except Malformed as error:
        ticket.keep_input(message)
        raise Refused(Refusal(400, error.code, error.detail, error.reason), error.id) from error
