"""The fronts, each for its transport and era: from an exchange to the session or request that it is about."""

import contextlib
from collections.abc import Awaitable, Callable

from libs.common.decision.ladder import Decision
from services.gateway import refusals
from services.gateway.authentication import Unauthenticated
from services.gateway.bridge import http_front, modern_front, sse_front
from services.gateway.bridge.conversations import ENDED, ID_IN_USE, refusal_of
from services.gateway.bridge.exchange import Exchange
from services.gateway.bridge.governed import Failed, Governor, signed_out
from services.gateway.bridge.host import Host, Whole
from services.gateway.bridge.http_front import HostedHttpSession
from services.gateway.bridge.sse_front import HostedSseSession
from services.gateway.connection import UpstreamFailed
from services.gateway.envelope import Envelope
from services.gateway.links.port import Emit, always
from services.gateway.protocol import INVALID_REQUEST
from services.gateway.refusals import Refusal
from services.gateway.running import Errand
from services.gateway.ticket import Refused, Ticket

_NO_SESSION = Refusal(
    400, INVALID_REQUEST, "Send initialize first, then its Mcp-Session-Id", "session_missing"
)


class Fronts:
    """Answers what this replica has to answer. A slow client may have `backlog` bytes waiting for it."""

    def __init__(self, governor: Governor, host: Host, whole: Whole, backlog: int) -> None:
        self._governor, self._host, self._whole, self._backlog = governor, host, whole, backlog

    async def answer(self, exchange: Exchange, ticket: Ticket) -> None:
        """Answer an exchange. Raises `Refused` and `Unauthenticated` before anything was sent."""
        try:
            if exchange.front == "sse":
                await self._sse(exchange, ticket)
            else:
                await self._http(exchange, ticket)
        except Failed as error:
            await refusals.answer(exchange.send, error.refusal, ticket.id)

    async def _sse(self, exchange: Exchange, ticket: Ticket) -> None:
        if exchange.method == "GET":
            await self._open_sse(exchange, ticket)
        elif exchange.method == "POST" and exchange.caller.session:
            await self._post_sse(exchange, ticket)
        else:  # clients that know both transports try a POST first (2025-03-26, "Backwards Compatibility")
            raise Refused(_wrong_method("The event stream is opened by GET", b"GET"))

    async def _open_sse(self, exchange: Exchange, ticket: Ticket) -> None:
        decision = ticket.decide()
        session = self._host.open_sse(exchange, ticket, decision)
        try:
            await self._last(exchange, ticket, decision, lambda: sse_front.stream(exchange, session))
        finally:
            await self._host.end(session, ENDED)

    async def _post_sse(self, exchange: Exchange, ticket: Ticket) -> None:
        session = self._host.register.find(exchange.caller.session)
        if not isinstance(session, HostedSseSession):
            raise no_session(ticket)
        assert session.conversation and ticket.envelope
        try:
            await session.conversation.take(ticket, exchange.body)
        except Refused as error:
            if ticket.envelope.kind != "request":
                raise
            ticket.deny(error)  # the client waits for it on the stream, whatever the POST says
            session.stream.put(refusals.body(error.refusal, ticket.id))
        self._host.check_backlog(session)
        await exchange.respond(202)

    async def _http(self, exchange: Exchange, ticket: Ticket) -> None:
        envelope = ticket.envelope
        if envelope and envelope.modern:
            await self._modern(exchange, ticket, envelope)
        elif exchange.caller.session:
            await self._in_session(exchange, ticket)
        elif envelope and envelope.kind == "request" and envelope.method == "initialize":
            await self._initialize(exchange, ticket, envelope)
        elif exchange.method == "GET":
            raise Refused(_wrong_method("There is no stream without a session", b"POST"))
        else:
            raise Refused(_NO_SESSION)

    async def _initialize(self, exchange: Exchange, ticket: Ticket, envelope: Envelope) -> None:
        session = self._host.open_http(exchange, ticket, ticket.decide())
        try:
            await self._ask(exchange, ticket, session, envelope)
        finally:
            if not session.initialized:
                self._host.end_soon(session, ENDED)

    async def _in_session(self, exchange: Exchange, ticket: Ticket) -> None:
        session = self._host.register.find(exchange.caller.session)
        if not isinstance(session, HostedHttpSession):
            raise no_session(ticket)
        session.touch()
        envelope = ticket.envelope
        if exchange.method == "GET":
            await self._listen(exchange, ticket, session)
        elif envelope is None:
            await self._end(exchange, ticket, session)
        elif envelope.kind == "request":
            await self._ask(exchange, ticket, session, envelope)
        else:
            assert session.conversation
            await session.conversation.take(ticket, exchange.body)
            await exchange.respond(202)
        self._host.check_backlog(session)

    async def _ask(
        self, exchange: Exchange, ticket: Ticket, session: HostedHttpSession, envelope: Envelope
    ) -> None:
        if session.waits_for(envelope):
            raise Refused(ID_IN_USE)
        stream = session.stream_for(envelope)
        assert session.conversation
        try:
            await session.conversation.take(ticket, exchange.body)
        except BaseException:
            session.forget(stream)
            raise
        await http_front.answer(exchange, session, stream)

    async def _listen(self, exchange: Exchange, ticket: Ticket, session: HostedHttpSession) -> None:
        stream, after = session.main, None
        if last := exchange.header(b"last-event-id"):
            found = session.find(last)
            if found is None:
                raise Refused(
                    Refusal(400, INVALID_REQUEST, "No such event can be gone on from", "event_unknown")
                )
            stream, after = found
        decision = ticket.decide()
        await self._last(
            exchange, ticket, decision, lambda: http_front.listen(exchange, session, stream, after)
        )

    async def _end(self, exchange: Exchange, ticket: Ticket, session: HostedHttpSession) -> None:
        decision = ticket.decide()
        if exchange.server:
            await ticket.admit(decision)
        await self._host.end(session, ENDED)
        if exchange.server:
            ticket.finish("ok", decision.reason, http_status=200)
        await exchange.respond(200)

    async def _last(
        self, exchange: Exchange, ticket: Ticket, decision: Decision, work: Callable[[], Awaitable[None]]
    ) -> None:
        """Carry a stream that lasts until somebody ends it. Raises `Refused` before it has begun."""
        errand, recorded = Errand(), bool(exchange.server)
        with ticket.in_flight(decision, errand) as flight:
            if recorded:  # the gateway as a whole is no upstream
                await ticket.admit(decision)
            try:
                await errand.run(_awaiting(work))
            except UpstreamFailed as failure:
                with contextlib.suppress(Unauthenticated):  # too late to say so
                    if recorded:
                        ticket.fail(failure, decision, flight)
                if exchange.started:
                    await exchange.end()
            else:
                if recorded:
                    ticket.finish("ok", decision.reason, http_status=200)

    async def _modern(self, exchange: Exchange, ticket: Ticket, envelope: Envelope) -> None:
        if envelope.kind != "request":
            await self._notify(exchange, ticket)
            await exchange.respond(202)
            return
        ask = self._ask_whole if not exchange.server else self._ask_server
        await modern_front.answer(
            exchange, lambda emit: ask(exchange, ticket, emit), envelope.id, self._backlog
        )

    async def _ask_server(self, exchange: Exchange, ticket: Ticket, emit: Emit) -> bytes:
        try:
            return await self._governor.request(exchange.caller, ticket, exchange.body, emit)
        except Refused as error:
            if not exchange.started:
                raise
            ticket.deny(error)
            raise Failed(error.refusal) from error
        except Unauthenticated as error:
            if not exchange.started:
                raise
            raise Failed(signed_out(error)) from error

    async def _ask_whole(self, exchange: Exchange, ticket: Ticket, emit: Emit) -> bytes:
        errand = Errand()
        with ticket.in_flight(ticket.decide(), errand):
            endpoint = self._whole(exchange.caller)
            try:
                return await errand.run(endpoint.request(exchange.body, emit, always))
            except UpstreamFailed as failure:
                raise Failed(refusal_of(failure)) from failure

    async def _notify(self, exchange: Exchange, ticket: Ticket) -> None:
        if exchange.server:
            await self._governor.notify(exchange.caller, ticket, exchange.body)
        else:
            ticket.decide()


def no_session(ticket: Ticket) -> Refused:
    """To be raised for a session that is not there, or not the caller's. May raise another refusal itself."""
    return ticket.refused(
        "session_foreign", "this session has ended, or is not yours: connect again", ticket.decide()
    )


async def _awaiting(work: Callable[[], Awaitable[None]]) -> None:
    await work()


def _wrong_method(detail: str, allowed: bytes) -> Refusal:
    return Refusal(405, INVALID_REQUEST, detail, "method_not_allowed", headers=[(b"allow", allowed)])
