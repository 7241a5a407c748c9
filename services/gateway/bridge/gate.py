"""Which requests are for the bridged lane, and which replica has to answer them."""

import asyncio
from collections.abc import Awaitable
from functools import partial
from typing import NamedTuple

from services.gateway import refusals
from services.gateway.asgi import Receive, Scope, Send, disconnected
from services.gateway.authentication import Unauthenticated
from services.gateway.bridge.exchange import Exchange, Front
from services.gateway.bridge.fronts import Fronts, no_session
from services.gateway.bridge.governed import Governor
from services.gateway.bridge.host import Host, Whole
from services.gateway.bridge.register import PREFIX
from services.gateway.bridge.relaying import Relaying
from services.gateway.bridge.upstreams import Upstreams
from services.gateway.connection import UpstreamFailed
from services.gateway.envelope import Envelope, Malformed, check_headers, is_simple, parse
from services.gateway.links.spoken_eras import SpokenEras
from services.gateway.metadata import path_of
from services.gateway.refusals import Refusal
from services.gateway.ticket import Caller, Refused, Shared, Ticket


class Arrival(NamedTuple):
    """A request of an authenticated caller as it came in. `server` is empty for the gateway as a whole."""

    scope: Scope
    receive: Receive
    send: Send
    server: str
    front: Front
    caller: Caller


class Gate:
    """The way into the bridged lane."""

    def __init__(
        self,
        shared: Shared,
        upstreams: Upstreams,
        governor: Governor,
        eras: SpokenEras,
        *,
        relaying: Relaying,
        whole: Whole,
    ) -> None:
        self._shared, self._upstreams, self._eras, self._relaying = shared, upstreams, eras, relaying
        self.host = Host(shared, upstreams, whole)
        self._fronts = Fronts(governor, self.host, whole, shared.settings.gateway_backlog_limit)

    # -- which lane -------------------------------------------------------------------------------

    def divert(self, arrival: Arrival, ticket: Ticket, body: bytes) -> Awaitable[bool] | None:
        """None for the transparent lane; otherwise see `passage.Divert`."""
        server = self._shared.tables.servers.get(arrival.server)
        transparent = (
            server is not None
            and server.transport == "streamable_http"
            and server.bridge == "auto"
            and arrival.front == "http"
            and not arrival.caller.session.startswith(PREFIX)
        )
        if not transparent and (server or not arrival.server or arrival.front == "sse"):
            return self._serve(_exchange(arrival, body), ticket)
        envelope = ticket.envelope
        if server is None or envelope is None or envelope.kind != "request":
            return None
        if envelope.modern and envelope.method != "server/discover":
            spoken = self._eras.speaks(server.slug, server.url, "modern")
        elif envelope.method == "initialize" and not envelope.modern:
            spoken = self._eras.speaks(server.slug, server.url, "legacy")
        else:
            return None
        return None if spoken else self._serve_other_era(arrival, ticket, body)

    async def _serve_other_era(self, arrival: Arrival, ticket: Ticket, body: bytes) -> bool:
        """Serve what the upstream would not understand; False if it would, or that cannot be found out."""
        decision = ticket.decide()
        assert decision.server and ticket.envelope
        credential = await ticket.credential(decision)
        try:
            spoken = await self._upstreams.spoken(decision.server, credential)
        except UpstreamFailed:
            return False  # it fails as it would without us
        if spoken in {"both", "modern" if ticket.envelope.modern else "legacy"}:
            return False
        return await self._serve(_exchange(arrival, body), ticket)

    # -- which replica ----------------------------------------------------------------------------

    async def _serve(self, exchange: Exchange, ticket: Ticket) -> bool:
        owner = self._owner(exchange, ticket)
        if owner == self._shared.journal.replica:
            await self._fronts.answer(exchange, ticket)
        elif not await self._relaying.relay(exchange, owner):
            raise no_session(ticket)
        return True

    def _owner(self, exchange: Exchange, ticket: Ticket) -> str:
        """The replica that has to answer. Raises `Refused` for a session that is not the caller's."""
        if exchange.caller.session:
            owner = self.host.ids.owner(exchange.caller.session, exchange.server, exchange.caller.claims)
            if owner is None:
                raise no_session(ticket)
            return owner
        return self._upstreams.holder(ticket.envelope) or self._shared.journal.replica

    async def relayed(self, exchange: Exchange) -> None:
        """Answer an exchange that another replica brought, as if it had come here."""
        ticket = Ticket(self._shared, exchange.caller, exchange.server, exchange.method)
        try:
            if exchange.method == "POST":
                ticket.decide_early()
                ticket.take(await _envelope(exchange))
            await self._fronts.answer(exchange, ticket)
        except Refused as error:
            ticket.deny(error)
            if not exchange.started:
                await refusals.answer(exchange.send, error.refusal, error.id or ticket.id)
        except Unauthenticated as error:
            path = path_of(exchange.server, sse=exchange.front == "sse")
            await self._shared.authenticator.turn_away(exchange.send, error, path)


def _exchange(arrival: Arrival, body: bytes) -> Exchange:
    scope, caller = arrival.scope, arrival.caller
    return Exchange(
        method=scope["method"],
        front=arrival.front,
        server=arrival.server,
        caller=caller,
        headers=scope["headers"],
        body=body,
        send=arrival.send,
        gone=partial(disconnected, arrival.receive),
    )


async def _envelope(exchange: Exchange) -> Envelope:
    """What another replica has read already. Raises `Refused`."""
    body = exchange.body
    try:
        envelope = parse(body) if is_simple(body) else await asyncio.to_thread(parse, body)
        check_headers(envelope, exchange.headers)
    except Malformed as error:
        raise Refused(Refusal(400, error.code, error.detail, error.reason), error.id) from error
    return envelope
