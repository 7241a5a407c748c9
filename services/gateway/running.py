"""Calls and streams in flight. A change that forbids one ends it; nobody waits for it to end by itself."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from libs.common.tokens import Claims
from services.gateway.connection import UpstreamFailed
from services.gateway.ladder import Call, Decision


class Stoppable(Protocol):
    """What carries a call, and can be told to end it at any moment."""

    def abort(self, failure: UpstreamFailed) -> None: ...


@dataclass(slots=True, eq=False)
class Flight:
    """One call that was admitted and has not ended."""

    claims: Claims
    call: Call
    carrier: Stoppable
    lasting: bool = False  # a stream that stays open until somebody closes it
    on_change: Callable[[Decision], None] | None = None  # told how it would be decided on after each change
    forbidden: Decision | None = None  # set when a change ended it

    def forbid(self, decision: Decision) -> None:
        """End it, because of `decision`."""
        self.forbidden = decision
        self.carrier.abort(UpstreamFailed(decision.reason, decision.detail))


class TooMany(Exception):
    """The user has as many calls, or streams, open as one may have."""


class Running:
    """The flights of this replica: of one person at most `calls`, and beside them `streams` lasting ones."""

    def __init__(
        self,
        decide: Callable[[Claims, Call], Decision],
        complete: Callable[[], bool],
        calls: int,
        streams: int,
    ) -> None:
        """`decide` decides by the log as it is known, lease or not; `complete`: all of the log is known."""
        self._decide, self._complete = decide, complete
        self._calls, self._streams = calls, streams
        self._review_owed = False
        self._flights: set[Flight] = set()
        self._open: Counter[tuple[str, bool]] = Counter()  # by user and whether they last

    @contextmanager
    def carry(self, flight: Flight) -> Iterator[None]:
        """Keep `flight` in the list for as long as the block runs. Raises `TooMany`."""
        kind = flight.claims.subject, flight.lasting
        if self._open[kind] >= (self._streams if flight.lasting else self._calls):
            raise TooMany
        self._open[kind] += 1
        self._flights.add(flight)
        try:
            yield
        finally:
            self._flights.discard(flight)
            self._open[kind] -= 1
            if not self._open[kind]:
                del self._open[kind]

    def review(self, key: str, _: bytes | None, __: int) -> None:
        """A follower's callback: end what the new state would not admit, and tell the rest of it.

        A replica without a lease admits nothing, but ends only what it knows to be forbidden.
        """
        if not self._complete():
            self._review_owed = True  # what is still to be read may allow it
            return
        if key.startswith("replica.") and not self._review_owed:
            return
        self._review_owed = False
        for flight in list(self._flights):
            decision = self._decide(flight.claims, flight.call)
            if not decision.allowed:
                flight.forbid(decision)
            elif flight.on_change:
                flight.on_change(decision)
