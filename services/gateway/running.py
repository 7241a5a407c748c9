"""Calls and streams in flight. A change that forbids one ends it; nobody waits for it to end by itself."""

from collections.abc import Callable
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


class Running:
    """The flights of this replica."""

    def __init__(self, decide: Callable[[Claims, Call], Decision]) -> None:
        self._decide = decide
        self._flights: set[Flight] = set()

    def __len__(self) -> int:
        return len(self._flights)

    def add(self, flight: Flight) -> None:
        self._flights.add(flight)

    def remove(self, flight: Flight) -> None:
        self._flights.discard(flight)

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
