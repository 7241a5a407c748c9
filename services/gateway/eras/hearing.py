"""Who hears of changes in one legacy session: the `subscriptions/listen` streams that are served from it."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from services.gateway.connection import UpstreamFailed
from services.gateway.eras import discovery, failures
from services.gateway.eras.subscriptions import (
    CHANGES,
    Filter,
    acknowledgement,
    possible_lists,
    with_subscription,
)
from services.gateway.links.port import Check, Emit
from services.gateway.messages import Message

MOST_EARLY, EARLY_BYTES = 1000, 1024 * 1024  # of different notifications before the acknowledgement

Request = Callable[[str, Any, Check], Awaitable[Message]]


class Hearer:
    """One stream, for the request `id` (raw JSON). Nothing is told before its acknowledgement."""

    def __init__(self, id: bytes, emit: Emit) -> None:
        self.filter = Filter()
        self._id, self._emit = id, emit
        self._early: dict[bytes, None] | None = {}  # what came before; twice is told once
        self._early_bytes = 0
        self._failure: UpstreamFailed | None = None
        self._ended = asyncio.Event()

    def acknowledge(self) -> None:
        self._emit(acknowledgement(self._id, self.filter))
        early, self._early = self._early or {}, None
        for notification in early:
            self._emit(notification)

    def tell(self, notification: bytes) -> None:
        told = with_subscription(notification, self._id)
        if self._early is None:
            self._emit(told)
        elif len(self._early) < MOST_EARLY and self._early_bytes + len(told) <= EARLY_BYTES:
            self._early_bytes += len(told) if told not in self._early else 0
            self._early[told] = None

    def end(self, failure: UpstreamFailed) -> None:
        self._failure = self._failure or failure
        self._ended.set()

    async def ended(self) -> UpstreamFailed:
        """Why the session ended, once it has."""
        await self._ended.wait()
        assert self._failure
        return self._failure


class Hearing:
    """The hearers of one session. `request` sends it a request of our own."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._hearers: set[Hearer] = set()
        self._subscribed: Counter[str] = Counter()

    async def join(self, hearer: Hearer, wanted: Filter, capabilities: bytes, check: Check) -> None:
        """Have `hearer` told of what the server, with its `capabilities`, honours of `wanted`.

        Its filter says what that is. Raises `UpstreamFailed`.
        """
        self._hearers.add(hearer)
        hearer.filter = Filter(wanted.lists & possible_lists(capabilities))
        if discovery.has_capability(capabilities, "resources", "subscribe"):
            for uri in sorted(wanted.uris):
                if await self._subscribe(uri, check):
                    hearer.filter = hearer.filter._replace(uris=hearer.filter.uris | {uri})

    def leave(self, hearer: Hearer) -> list[str]:
        """`hearer` is gone. The resources that nobody is left for."""
        self._hearers.discard(hearer)
        return [uri for uri in sorted(hearer.filter.uris) if self._forget(uri)]

    def take(self, raw: bytes, notification: Message) -> bool:
        """Tell those who want to hear it; whether it is a change at all."""
        for hearer in self._hearers:
            if hearer.filter.wants(notification):
                hearer.tell(raw)
        return notification.method in CHANGES

    def end(self, failure: UpstreamFailed) -> None:
        for hearer in self._hearers:
            hearer.end(failure)

    async def _subscribe(self, uri: str, check: Check) -> bool:
        """Whether the server tells changes of `uri`."""
        self._subscribed[uri] += 1
        if self._subscribed[uri] > 1:
            check()
            return True
        try:
            response = await self._request("resources/subscribe", {"uri": uri}, check)
        except BaseException:
            self._forget(uri)
            raise
        return not failures.error_of(response) or not self._forget(uri)

    def _forget(self, uri: str) -> bool:
        """One less wants `uri`; whether nobody is left."""
        self._subscribed[uri] -= 1
        if self._subscribed[uri]:
            return False
        del self._subscribed[uri]
        return True
