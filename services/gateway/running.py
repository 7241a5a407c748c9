"""Calls and streams in flight. A change that forbids one ends it; nobody waits for it to end by itself."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from libs.common.decision.ladder import Call, Decision, goes_elsewhere
from libs.common.tokens import Claims
from services.gateway.connection import UpstreamFailed
from services.gateway.review import Review

T = TypeVar("T")


class Stoppable(Protocol):
    """What carries a call, and can be told to end it at any moment."""

    def abort(self, failure: UpstreamFailed) -> None: ...


class Errand(Stoppable):
    """Awaits work that can be told to end at any moment."""

    def __init__(self) -> None:
        self._failure: UpstreamFailed | None = None
        self._task: asyncio.Task[Any] | None = None

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`. Raises the failure with which it was aborted."""
        self._task = task = asyncio.ensure_future(work)
        if self._failure:
            task.cancel()
        try:
            return await task
        except asyncio.CancelledError:
            if self._failure:
                raise self._failure from None
            raise

    def abort(self, failure: UpstreamFailed) -> None:
        self._failure = self._failure or failure
        if self._task:
            self._task.cancel()


@dataclass(slots=True, eq=False)
class Flight:
    """One call that was admitted and has not ended."""

    claims: Claims
    call: Call
    carrier: Stoppable
    lasting: bool = False  # a stream that stays open until somebody closes it
    decision: Decision | None = None  # that admitted it, where it says which way it goes
    on_change: Callable[[Decision], None] | None = None  # told how it would be decided on after each change
    forbidden: Decision | None = None  # set when a change ended it

    def rests_on(self, key: str) -> bool:
        """Whether the entry `key` of the control log has a part in the decision. A change of ten thousand
        users must not decide ten thousand times on everybody's calls."""
        kind, _, name = key.partition(".")
        match kind:
            case "user" | "member":
                return name == self.claims.subject
            case "revoked":
                return name == self.claims.grant
            case "server" | "credential":
                return self.call.server in {"", name.partition(".")[0]}
            case "quota":  # they count what is admitted
                return False
        return True

    def forbid(self, decision: Decision) -> None:
        """End it, because of `decision`."""
        self.forbidden = decision
        self.carrier.abort(UpstreamFailed(decision.reason, decision.detail))


def moved_away() -> UpstreamFailed:
    """For a call to what a server was before a change of the log."""
    return UpstreamFailed("upstream_broke_off", "an administrator changed how it is reached")


class TooMany(Exception):
    """The user has as many calls, or streams, open as one may have."""


class Running:
    """The flights of this replica: of one person at most `calls`, and beside them `streams` lasting ones and
    `calls` that have not come in whole."""

    def __init__(
        self,
        decide: Callable[[Claims, Call], Decision],
        complete: Callable[[], bool],
        calls: int,
        streams: int,
    ) -> None:
        """`decide` decides by the log as it is known, lease or not; `complete`: all of the log is known."""
        self._decide = decide
        self.review = Review(complete, self._review)
        self._calls, self._streams = calls, streams
        self._flights: set[Flight] = set()
        self._open: Counter[tuple[str, bool]] = Counter()  # by user and whether they last
        self._arriving: Counter[str] = Counter()  # requests of which only a part has come, by user

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

    @contextmanager
    def receive(self, user: str) -> Iterator[None]:
        """Count a request that comes in pieces, for as long as the block runs. Raises `TooMany`."""
        if self._arriving[user] >= self._calls:
            raise TooMany
        self._arriving[user] += 1
        try:
            yield
        finally:
            self._arriving[user] -= 1
            if not self._arriving[user]:
                del self._arriving[user]

    def _review(self, key: str) -> None:
        """End what the new state would not admit, or would send elsewhere, and tell the rest of it.

        A replica without a lease admits nothing, but ends only what it knows to be forbidden.
        """
        for flight in [flight for flight in self._flights if flight.rests_on(key)]:
            decision = self._decide(flight.claims, flight.call)
            if not decision.allowed:
                flight.forbid(decision)
            elif flight.decision and goes_elsewhere(flight.decision, decision):
                flight.carrier.abort(moved_away())
            elif flight.on_change:
                flight.on_change(decision)
