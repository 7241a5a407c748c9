"""The legacy sessions that a modern client's requests are served from: opened on demand, shared, bounded.

A session belongs to what the client says of itself, since `initialize` tells the server that. A client that
can be asked gets a session for each call that may ask, so that it is known which call a question belongs to.
"""

import asyncio
from dataclasses import dataclass

from libs.common.lifecycle import Tasks, cancel
from services.gateway.connection import UpstreamFailed
from services.gateway.eras.legacy_session import LegacySession
from services.gateway.eras.translation import Identity
from services.gateway.links.port import OpenSession


@dataclass(frozen=True)
class SessionLimits:
    """`most` at once, closed after `idle` seconds; `start` seconds for `initialize`.

    `waiting` requests wait for one, `patience` seconds.
    """

    most: int = 8
    idle: float = 120.0
    waiting: int = 64
    patience: float = 30.0
    start: float = 60.0


@dataclass(eq=False)
class _Held:
    session: LegacySession
    started: "asyncio.Task[None]"
    idle: asyncio.TimerHandle | None = None


class SessionPool:
    """Sessions, each with who uses it."""

    def __init__(self, open: OpenSession, limits: SessionLimits) -> None:
        self._open, self._limits = open, limits
        self._held: dict[LegacySession, _Held] = {}
        self._waiting: set[asyncio.Future[None]] = set()
        self._closing = Tasks()
        self._closed = False

    @property
    def empty(self) -> bool:
        return not self._held

    @property
    def sessions(self) -> list[LegacySession]:
        """All that are open, the newest last."""
        return list(self._held)

    async def take(self, identity: Identity, *, to_ask: bool) -> LegacySession:
        """A session for `identity`, to be given back; `to_ask`: only this user of it may be asked.

        Raises `UpstreamFailed`.
        """
        held = await self._available(identity, to_ask)
        session = held.session
        session.users += 1
        session.reserved = session.reserved or to_ask
        if held.idle:
            held.idle.cancel()
        try:
            await asyncio.shield(held.started)
        except BaseException as error:
            self.give_back(session, to_ask=to_ask)
            if isinstance(error, asyncio.CancelledError) and held.started.cancelled():
                raise UpstreamFailed("upstream_broke_off", "the connection to it was closed") from None
            raise
        return session

    def give_back(self, session: LegacySession, *, to_ask: bool) -> None:
        session.users -= 1
        if to_ask:
            session.reserved = False
        held = self._held.get(session)
        if held and not session.users:
            loop = asyncio.get_running_loop()
            held.idle = loop.call_later(self._limits.idle, self._remove, session)
        self._wake()

    async def close(self, failure: UpstreamFailed) -> None:
        """Close all; what runs ends with `failure`."""
        self._closed = True
        for session in self.sessions:
            self._remove(session, failure)
        self._wake()
        await self._closing.join()

    async def _available(self, identity: Identity, to_ask: bool) -> _Held:
        deadline = asyncio.get_running_loop().time() + self._limits.patience
        while True:
            if self._closed:
                raise UpstreamFailed("upstream_broke_off", "the connection to it was closed")
            if held := self._suitable(identity, to_ask) or self._opened(identity):
                return held
            await self._wait(deadline)

    def _suitable(self, identity: Identity, to_ask: bool) -> _Held | None:
        for session, held in self._held.items():
            if session.identity == identity and not (to_ask and session.reserved):
                return held
        return None

    def _opened(self, identity: Identity) -> _Held | None:
        """A new one, if there is room or one that nobody uses makes room."""
        if len(self._held) >= self._limits.most:
            unused = next((each for each in self._held if not each.users), None)
            if unused is None:
                return None
            self._remove(unused)
        session = LegacySession(
            self._open, identity, self._limits.start, on_over=lambda: self._remove(session)
        )
        started = asyncio.create_task(session.start(), name="legacy-initialize")
        started.add_done_callback(lambda task: self._started(session, task))
        held = self._held[session] = _Held(session, started)
        return held

    def _started(self, session: LegacySession, task: "asyncio.Task[None]") -> None:
        if task.cancelled() or task.exception():
            self._remove(session)

    def _remove(self, session: LegacySession, failure: UpstreamFailed | None = None) -> None:
        held = self._held.pop(session, None)
        if held is None:
            return
        if held.idle:
            held.idle.cancel()
        self._closing.spawn(self._close(held, failure), "legacy-close")
        self._wake()

    async def _close(self, held: _Held, failure: UpstreamFailed | None) -> None:
        await held.session.close(failure)
        await cancel(held.started)  # if it still connects

    async def _wait(self, deadline: float) -> None:
        """Wait until something changes. Raises `UpstreamFailed`."""
        if len(self._waiting) >= self._limits.waiting:
            raise UpstreamFailed(
                "upstream_busy", f"{self._limits.waiting} requests wait for a session with it"
            )
        change: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(change)
        try:
            async with asyncio.timeout_at(deadline):
                await change
        except TimeoutError:
            detail = f"all {self._limits.most} sessions with it were busy for {self._limits.patience:g} s"
            raise UpstreamFailed("upstream_busy", detail) from None
        finally:
            self._waiting.discard(change)

    def _wake(self) -> None:
        for change in self._waiting:
            if not change.done():
                change.set_result(None)
