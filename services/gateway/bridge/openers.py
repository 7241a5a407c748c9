"""What opens sessions with upstreams, also after a process has ended or a credential has changed."""

from collections.abc import Awaitable, Callable
from weakref import WeakSet

from services.gateway.connection import UpstreamFailed
from services.gateway.links.http import HttpSession
from services.gateway.links.port import Check, Emit, OnClosed, OnFailed, Reached, Session
from services.gateway.links.route import Route
from services.gateway.links.sse import SseSession

SESSIONS: dict[str, Callable[..., "SseSession | HttpSession"]] = {
    "sse": SseSession,
    "streamable_http": HttpSession,
}


class Opener:
    """Opens sessions with one upstream (`OpenSession`); a new `route` is for those that are open, too."""

    def __init__(self, route: Route, make: Callable[..., "SseSession | HttpSession"]) -> None:
        self._route, self._make = route, make
        self._open: WeakSet[SseSession | HttpSession] = WeakSet()

    def __call__(self, on_message: Emit, on_closed: OnClosed, on_failed: OnFailed) -> Session:
        session = self._make(self._route, on_message, on_closed, on_failed)
        self._open.add(session)
        return session

    @property
    def route(self) -> Route:
        return self._route

    @route.setter
    def route(self, route: Route) -> None:
        self._route = route
        for session in self._open:
            session.route = route


class Reaching(Session):
    """A session with a stdio server, for which its process is started if need be."""

    def __init__(
        self,
        reach: Callable[[], Awaitable[Reached]],
        on_message: Emit,
        on_closed: OnClosed,
        on_failed: OnFailed,
    ) -> None:
        self._reach, self._callbacks = reach, (on_message, on_closed, on_failed)
        self._session: Session | None = None

    async def start(self) -> None:
        reached = await self._reach()
        if reached.open is None:
            raise UpstreamFailed("upstream_broke_off", "it was replaced by one of another era; try again")
        self._session = reached.open(*self._callbacks)
        await self._session.start()

    async def send(self, message: bytes, check: Check) -> None:
        assert self._session
        await self._session.send(message, check)

    async def close(self) -> None:
        if self._session:
            await self._session.close()
