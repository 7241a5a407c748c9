"""Calls of modern clients that wait for input, between the request that was asked and its retry.

A `requestState` is `<prefix>.<token>`: `prefix` says who holds the call, `token` is 192 random bits in
URL-safe Base64, which has no dot. It is used up by its first retry (MCP 2026-07-28, basic/patterns/mrtr).
"""

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from services.gateway.connection import UpstreamFailed
from services.gateway.eras.calls import Call
from services.gateway.eras.legacy_session import LegacySession


def prefix_of(state: str) -> str:
    """The prefix that a `requestState` was made with; empty if it is none of ours."""
    return state.rpartition(".")[0]


@dataclass(frozen=True, eq=False)
class Asking:
    """A call, the session in which it runs, and the digest of the request that it is for."""

    session: LegacySession
    call: Call
    digest: bytes


class Held:
    """At most `most` calls, each for `lifetime` seconds. `on_expired` is called with what nobody took up."""

    def __init__(self, prefix: str, most: int, lifetime: float, on_expired: Callable[[Asking], None]) -> None:
        self._prefix, self._most, self._lifetime, self._on_expired = prefix, most, lifetime, on_expired
        self._held: dict[str, tuple[Asking, asyncio.TimerHandle]] = {}

    @property
    def empty(self) -> bool:
        return not self._held

    def hold(self, asking: Asking) -> str:
        """The state that names it. Raises `UpstreamFailed` when too many are held."""
        if len(self._held) >= self._most:
            raise UpstreamFailed("upstream_busy", f"{self._most} calls to it wait for input already")
        state = f"{self._prefix}.{secrets.token_urlsafe(24)}"
        timer = asyncio.get_running_loop().call_later(self._lifetime, self._expire, state)
        self._held[state] = asking, timer
        return state

    def find(self, state: str) -> Asking | None:
        held = self._held.get(state)
        return held[0] if held else None

    def release(self, state: str) -> None:
        """It is taken up."""
        _, timer = self._held.pop(state)
        timer.cancel()

    def close(self) -> None:
        """Nobody will take up any of them."""
        for state in [*self._held]:
            self._expire(state)

    def _expire(self, state: str) -> None:
        asking, timer = self._held.pop(state)
        timer.cancel()
        self._on_expired(asking)
