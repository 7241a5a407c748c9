"""Calls and streams in flight. A change that forbids one ends it; nobody waits for it to end by itself."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from libs.common.tokens import Claims
from services.gateway.ladder import Call, Decision
from services.gateway.upstream import Exchange, UpstreamFailed


@dataclass(slots=True, eq=False)
class Flight:
    """One call that was admitted and has not ended."""

    claims: Claims
    call: Call
    exchange: Exchange
    forbidden: Decision | None = None  # set when a change ended it


class TooMany(Exception):
    """The user has as many calls and streams open as one may have."""


class Running:
    """The flights of this replica, at most `per_user` of one person."""

    def __init__(self, decide: Callable[[Claims, Call], Decision], per_user: int) -> None:
        self._decide, self._per_user = decide, per_user
        self._flights: set[Flight] = set()
        self._users: Counter[str] = Counter()

    @contextmanager
    def carry(self, flight: Flight) -> Iterator[None]:
        """Keep `flight` in the list for as long as the block runs. Raises `TooMany`."""
        user = flight.claims.subject
        if self._users[user] >= self._per_user:
            raise TooMany
        self._users[user] += 1
        self._flights.add(flight)
        try:
            yield
        finally:
            self._flights.discard(flight)
            self._users[user] -= 1
            if not self._users[user]:
                del self._users[user]

    def still_allowed(self, flight: Flight) -> None:
        """Decide once more, at the last moment before sending. Raises `UpstreamFailed` if it is not."""
        decision = self._decide(flight.claims, flight.call)
        if not decision.allowed:
            flight.forbidden = decision
            raise UpstreamFailed(decision.reason, decision.detail)

    def review(self, key: str, _: bytes | None, __: int) -> None:
        """A follower's callback: end what the new state would not admit."""
        if key.startswith("replica."):
            return
        for flight in list(self._flights):
            decision = self._decide(flight.claims, flight.call)
            # A stale replica knows nothing new; it admits nothing, but ends nothing either.
            if not decision.allowed and decision.reason != "lease_expired":
                flight.forbidden = decision
                flight.exchange.abort(UpstreamFailed(decision.reason, decision.detail))

    def end_all(self) -> None:
        """The replica stops."""
        for flight in list(self._flights):
            flight.exchange.abort(UpstreamFailed("upstream_broke_off", "the gateway is shutting down"))
