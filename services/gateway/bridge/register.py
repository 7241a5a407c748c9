"""The sessions that this replica hosts for clients, by id, and ids that say so."""

import secrets
from collections import Counter
from typing import Protocol

from libs.common.clock import elapsed
from libs.common.control.entries import Server
from libs.common.tokens import Claims
from services.gateway.bridge.conversations import Conversation, Outlet
from services.gateway.connection import UpstreamFailed
from services.gateway.sessions import Sessions
from services.gateway.ticket import Caller

PREFIX = b"bridged."  # tells ids of ours from those of upstreams, before their MAC is looked at
IDLE = UpstreamFailed("cancelled", "nobody used the session any longer")


class Ids:
    """Ids of sessions: `bridged.<replica>.<random>.<MAC>`, good for one user, grant and server."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    def mint(self, replica: str, server: str, claims: Claims, *, opens_urls: bool) -> bytes:
        """A new one. `opens_urls`: see `Sessions.wrap`."""
        inner = b"%b%b.%b" % (PREFIX, replica.encode(), secrets.token_urlsafe(24).encode())
        return self._sessions.wrap(inner, *self._bound_to(server, claims), opens_urls=opens_urls)

    def owner(self, session: bytes, server: str, claims: Claims) -> str | None:
        """The replica that hosts it; None if it was not given to this caller for this server."""
        inner = self._sessions.unwrap(session, *self._bound_to(server, claims))
        if inner is None or not inner.startswith(PREFIX):
            return None
        return inner.removeprefix(PREFIX).partition(b".")[0].decode()

    def _bound_to(self, server: str, claims: Claims) -> tuple[str, str]:
        # No slug has a space in it, so that nothing an upstream names can pass for one of these.
        return f"bridged {server}", f"{claims.subject} {claims.grant}"


class Hosted(Outlet, Protocol):
    """A session of a client. `server` is the entry of the log with which it began."""

    id: bytes
    caller: Caller
    server: Server | None
    conversation: Conversation | None

    @property
    def idle_since(self) -> float | None:
        """On the clock of `elapsed`; None while it is in use."""

    @property
    def overflown(self) -> bool:
        """Whether its client did not read what was sent to it."""

    async def close(self, failure: UpstreamFailed) -> None: ...


class Register:
    """The sessions of this replica by id."""

    def __init__(self) -> None:
        self._hosted: dict[bytes, Hosted] = {}
        self._users: Counter[str] = Counter()

    def count(self, user: str) -> int:
        return self._users[user]

    def add(self, hosted: Hosted) -> None:
        self._hosted[hosted.id] = hosted
        self._users[hosted.caller.claims.subject] += 1

    def find(self, session: bytes) -> Hosted | None:
        return self._hosted.get(session)

    def remove(self, hosted: Hosted) -> None:
        """May be called twice."""
        if self._hosted.pop(hosted.id, None) is None:
            return
        user = hosted.caller.claims.subject
        self._users[user] -= 1
        if not self._users[user]:
            del self._users[user]

    def idle(self, seconds: float) -> list[Hosted]:
        """Those that nobody has used for so long."""
        limit = elapsed() - seconds
        return [h for h in self._hosted.values() if h.idle_since is not None and h.idle_since < limit]

    def all(self) -> list[Hosted]:
        return list(self._hosted.values())
