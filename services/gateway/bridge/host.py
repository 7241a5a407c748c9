"""Makes and ends the sessions that this replica hosts."""

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

import structlog

from libs.common.decision.ladder import Call, Decision, way
from libs.common.lifecycle import Tasks
from services.gateway.bridge.conversations import Conversation, GovernedConversation, Outlet
from services.gateway.bridge.exchange import Exchange
from services.gateway.bridge.http_front import HostedHttpSession
from services.gateway.bridge.onward import Onward
from services.gateway.bridge.register import IDLE, Hosted, Ids, Register
from services.gateway.bridge.sse_front import HostedSseSession
from services.gateway.bridge.upstreams import Upstreams
from services.gateway.connection import UpstreamFailed
from services.gateway.elicitation import declares
from services.gateway.links.port import Endpoint
from services.gateway.running import Flight, Stoppable, TooMany, moved_away
from services.gateway.ticket import Caller, Shared, Ticket

log = structlog.get_logger(__name__)

# The endpoint for the gateway as a whole, for one caller.
Whole: TypeAlias = Callable[[Caller], Endpoint]

STOPPING = UpstreamFailed("upstream_broke_off", "the gateway replica that held the session stops")
TOO_SLOW = UpstreamFailed("cancelled", "the client did not read what was sent to it")


class _Ending(Stoppable):
    """Ends a session that a change forbids, after all that is in flight in it has learned of the change."""

    def __init__(self, host: "Host", hosted: Hosted) -> None:
        self._host, self._hosted = host, hosted

    def abort(self, failure: UpstreamFailed) -> None:
        self._host.end_soon(self._hosted, failure)


class Host:
    """The sessions of this replica."""

    def __init__(self, shared: Shared, upstreams: Upstreams, whole: Whole) -> None:
        settings = shared.settings
        self.ids = Ids(shared.sessions)
        self.register = Register()
        self._shared, self._upstreams, self._whole = shared, upstreams, whole
        self._per_user, self._backlog = settings.gateway_user_sessions, settings.gateway_backlog_limit
        self._ending = Tasks()

    def open_sse(self, exchange: Exchange, ticket: Ticket, decision: Decision) -> HostedSseSession:
        """A session for a client of HTTP+SSE. Raises `Refused`."""
        session = HostedSseSession(self._mint(exchange, ticket, decision), exchange.caller, self._backlog)
        self._begin(exchange, session, decision)
        return session

    def open_http(self, exchange: Exchange, ticket: Ticket, decision: Decision) -> HostedHttpSession:
        """A session for a client of Streamable HTTP. Raises `Refused`."""
        session = HostedHttpSession(self._mint(exchange, ticket, decision), exchange.caller, self._backlog)
        call = Call(exchange.server)
        flight = Flight(exchange.caller.claims, call, _Ending(self, session), lasting=True)
        try:
            session.landing.enter_context(self._shared.running.carry(flight))
        except TooMany:
            detail = "you have as many sessions and streams open as one may have"
            raise ticket.refused("too_many_streams", detail, decision) from None
        self._begin(exchange, session, decision)
        return session

    def _mint(self, exchange: Exchange, ticket: Ticket, decision: Decision) -> bytes:
        claims = exchange.caller.claims
        if self.register.count(claims.subject) >= self._per_user:
            detail = f"you have {self._per_user} sessions open"
            raise ticket.refused("too_many_streams", detail, decision)
        opens_urls = ticket.envelope is not None and declares(ticket.envelope)
        return self.ids.mint(self._shared.journal.replica, exchange.server, claims, opens_urls=opens_urls)

    def _begin(self, exchange: Exchange, hosted: Hosted, decision: Decision) -> None:
        hosted.server = decision.server
        hosted.conversation = self._conversation(exchange, hosted, partial(self.end_soon, hosted))
        self.register.add(hosted)

    def _conversation(
        self, exchange: Exchange, outlet: Outlet, on_end: Callable[[UpstreamFailed], None]
    ) -> Conversation:
        if not exchange.server:
            return Onward(self._whole(exchange.caller), outlet, on_end)
        connect = partial(self._upstreams.session, exchange.caller)
        return GovernedConversation(self._shared, connect, outlet, on_end)

    # -- the end ----------------------------------------------------------------------------------

    async def end(self, hosted: Hosted, failure: UpstreamFailed) -> None:
        """End a session; what runs in it ends with `failure`. May be called twice."""
        self.register.remove(hosted)
        await hosted.close(failure)

    def end_soon(self, hosted: Hosted, failure: UpstreamFailed) -> None:
        """The same from where nothing may block; nobody finds the session any more."""
        self.register.remove(hosted)
        self._ending.spawn(hosted.close(failure))

    def check_backlog(self, hosted: Hosted) -> None:
        """End a session whose client does not read."""
        if hosted.overflown:
            log.warning("slow_client", user=hosted.caller.claims.subject)
            self.end_soon(hosted, TOO_SLOW)

    def end_idle(self, seconds: float) -> None:
        for hosted in self.register.idle(seconds):
            self.end_soon(hosted, IDLE)
        for hosted in self.register.all():
            self.check_backlog(hosted)

    def review(self) -> None:
        """End sessions with what is reached in another way now."""
        for hosted in self.register.all():
            begun = hosted.server
            server = self._shared.tables.servers.get(begun.slug) if begun else None
            if begun and server and way(begun) != way(server):
                self.end_soon(hosted, moved_away())

    async def stop(self) -> None:
        for hosted in self.register.all():
            self.end_soon(hosted, STOPPING)
        await self._ending.join()
