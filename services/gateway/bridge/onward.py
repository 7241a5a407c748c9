"""Conversations with the gateway as a whole, whose requests are decided and recorded where they go to."""

from collections.abc import Callable

from libs.common.lifecycle import Tasks
from services.gateway import messages, refusals
from services.gateway.bridge.conversations import (
    Conversation,
    Outlet,
    cancelled_by,
    key_of,
    refusal_of,
)
from services.gateway.bridge.governed import Failed
from services.gateway.connection import UpstreamFailed
from services.gateway.eras.legacy_over_modern import LegacyOverModern
from services.gateway.links.port import Endpoint, always
from services.gateway.protocol import CANCELLED
from services.gateway.ticket import Ticket


class Onward(Conversation):
    """A conversation with an endpoint that governs each request itself, as the gateway as a whole does."""

    def __init__(self, endpoint: Endpoint, outlet: Outlet, on_end: Callable[[UpstreamFailed], None]) -> None:
        self._outlet = outlet
        self._session = LegacyOverModern(endpoint, self._on_message, on_end, self._on_failed, name="Lockgate")
        self._tasks = Tasks()

    async def take(self, ticket: Ticket, message: bytes) -> None:
        envelope = ticket.envelope
        assert envelope
        ticket.decide()
        if envelope.kind == "request":
            self._tasks.spawn(self._ask(envelope.id, message))
            return
        try:
            await self._session.send(message, always)
        except UpstreamFailed as failure:
            raise Failed(refusal_of(failure)) from failure
        if envelope.method == CANCELLED and (key := cancelled_by(envelope.params)) is not None:
            self._outlet.drop(key)

    async def _ask(self, id: bytes, message: bytes) -> None:
        try:
            await self._session.send(message, always)
        except UpstreamFailed as failure:
            self._on_failed(id, failure)

    def _on_message(self, message: bytes) -> None:
        read = messages.read(message)
        if read.kind == "response":
            self._outlet.answer(key_of(read.id), message)
        else:
            self._outlet.message(message)

    def _on_failed(self, id: bytes, failure: UpstreamFailed) -> None:
        refusal = refusal_of(failure)
        self._outlet.answer(key_of(id), refusals.body(refusal, id), refusal.status)

    async def close(self, failure: UpstreamFailed) -> None:
        self._outlet.end()
        await self._tasks.cancel()
        await self._session.close()
