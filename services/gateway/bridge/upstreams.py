"""From what the control log says of a server to a connection with its upstream, in the era that is wanted."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple, Protocol, TypeAlias

from libs.common.clock import elapsed
from libs.common.control.entries import Server
from libs.common.control.tables import Tables
from libs.common.decision.ladder import Call, Decision, way
from libs.common.lifecycle import Tasks
from libs.common.tokens import Claims
from services.gateway import messages
from services.gateway.bridge.openers import SESSIONS, Opener, Reaching
from services.gateway.connection import UpstreamFailed
from services.gateway.credentials import Opened
from services.gateway.envelope import Envelope
from services.gateway.eras.held import prefix_of
from services.gateway.eras.legacy_over_modern import LegacyOverModern
from services.gateway.eras.modern_over_legacy import ModernOverLegacy
from services.gateway.links.modern import ModernEndpoint
from services.gateway.links.parameters import Parameters
from services.gateway.links.port import (
    Check,
    Emit,
    Endpoint,
    Era,
    OnClosed,
    OnFailed,
    OpenSession,
    Reached,
    Session,
    always,
)
from services.gateway.links.processes import Processes
from services.gateway.links.route import Renewed, Route
from services.gateway.links.spoken_eras import Spoken, SpokenEras
from services.gateway.pool import Pools
from services.gateway.ticket import Caller

HELD = "lockgate"  # each `requestState` is `lockgate.<replica>.<token>`

# On whose behalf Lockgate asks for itself.
NOBODY = Caller(Claims("", "", "lockgate", "Lockgate", (), 0, 0))

# Takes over a credential, and what the log says of the server, as they are now.
Renew: TypeAlias = Callable[[Decision, Opened], None]


class Link(NamedTuple):
    """A session with an upstream, and how it learns of a new version of its credential."""

    session: Session
    renew: Renew


class Connect(Protocol):
    """Makes a session with an upstream, not yet started."""

    async def __call__(
        self,
        decision: Decision,
        credential: Opened,
        on_message: Emit,
        on_closed: OnClosed,
        on_failed: OnFailed,
    ) -> Link: ...


class _Routed(Protocol):
    """A connection over HTTP, for which a new `route` counts from the next message on."""

    route: Route


@dataclass(slots=True, eq=False)
class _HeldEndpoint:
    """An endpoint that one caller's requests to one server share."""

    claims: Claims
    server: Server
    making: asyncio.Lock = field(default_factory=asyncio.Lock)
    endpoint: Endpoint | None = None
    renew: Renew = lambda *_: None
    users: int = 0
    used: float = 0.0
    outdated: bool = False


class Upstreams:
    """The upstreams of this replica, each in the eras that it speaks."""

    def __init__(
        self,
        pools: Pools,
        tables: Tables,
        eras: SpokenEras,
        processes: Processes,
        *,
        decide: Callable[[Claims, Call], Decision],
        admit: Callable[[Claims, Call], Decision],
        replica: Callable[[], str],
        renewed: Renewed,
    ) -> None:
        """`decide` decides by the log as it is known, lease or not, `admit` only with one.

        `replica` names this one. `renewed` finds newer credentials.
        """
        self._pools, self._tables, self._eras, self._processes = pools, tables, eras, processes
        self._decide, self._admit, self._replica = decide, admit, replica
        self._renewed = renewed
        self._parameters: dict[tuple[str, str], Parameters] = {}
        self._endpoints: dict[tuple[object, ...], _HeldEndpoint] = {}
        self._closing = Tasks()

    def route(self, server: Server, credential: Opened, standing: Check = always) -> Route:
        """The way to an upstream over HTTP."""
        saw = self._eras.watcher(server.slug, server.url)
        route = Route.to(server, self._pools, credential)
        return replace(route, saw=saw, standing=standing, renewed=self._renewed)

    def _standing(self, caller: Caller, server: Server) -> Check:
        """For what keeps a session of `caller` going, between the requests that are decided one by one."""

        def check() -> None:
            decision = self._admit(caller.claims, Call(server.slug))
            if not decision.allowed:
                raise UpstreamFailed(decision.reason, decision.detail)

        return check

    async def spoken(self, server: Server, credential: Opened) -> Spoken:
        """What an upstream over Streamable HTTP speaks. Raises `UpstreamFailed` if it cannot be found out."""
        return await self._eras.probe(self.route(server, credential))

    # -- sessions ---------------------------------------------------------------------------------

    async def session(  # noqa: PLR0917  # what decides, and what listens
        self,
        caller: Caller,
        decision: Decision,
        credential: Opened,
        on_message: Emit,
        on_closed: OnClosed,
        on_failed: OnFailed,
    ) -> Link:
        """A session of one client's own, native where the upstream has any. Raises `UpstreamFailed`."""
        server = _server_of(decision)
        callbacks, standing = (on_message, on_closed, on_failed), self._standing(caller, server)
        if server.transport == "stdio":
            reached = await self._reach(caller, decision, credential, "legacy")
            if reached.open:
                return Link(reached.open(*callbacks), _nothing)
            assert reached.endpoint
            session = LegacyOverModern(reached.endpoint, *callbacks, name=server.name, check=standing)
            return Link(session, _nothing)
        if server.transport == "streamable_http" and await self.spoken(server, credential) == "modern":
            endpoint = self._modern(server, credential)
            session = LegacyOverModern(endpoint, *callbacks, name=server.name, check=standing)
            return Link(session, self._renewing(endpoint))
        native = SESSIONS[server.transport](self.route(server, credential, standing), *callbacks)
        return Link(native, self._renewing(native))

    def holder(self, envelope: Envelope | None) -> str:
        """The replica that holds the call of which `envelope` is a retry; empty if none that lives does."""
        if envelope is None or b"requestState" not in envelope.params:
            return ""
        try:
            state = messages.text(messages.members(envelope.params).get("requestState"))
        except messages.NotAMessage:
            return ""
        ours, _, replica = prefix_of(state).rpartition(".")
        return replica if ours == HELD and replica in self._tables.replicas else ""

    # -- endpoints --------------------------------------------------------------------------------

    @asynccontextmanager
    async def endpoint(
        self, caller: Caller, decision: Decision, credential: Opened
    ) -> AsyncIterator[Endpoint]:
        """The endpoint for one caller's requests to a server. Raises `UpstreamFailed`."""
        if _server_of(decision).transport == "stdio":
            # Asked for each time: the process may have been stopped since, and starts again then.
            reached = await self._reach(caller, decision, credential, "modern")
            if reached.endpoint:
                async with _closing(reached.endpoint) as endpoint:
                    yield endpoint
                return
        shared = self._shared_for(caller, decision)
        shared.users += 1
        try:
            async with shared.making:
                if shared.endpoint is None:
                    shared.endpoint, shared.renew = await self._make(caller, decision, credential)
            shared.renew(decision, credential)
            yield shared.endpoint
        finally:
            shared.users -= 1
            shared.used = elapsed()
            if shared.outdated and not shared.users:
                self._let_go(shared)

    @asynccontextmanager
    async def own_endpoint(self, server: Server, key: str, credential: Opened) -> AsyncIterator[Endpoint]:
        """An endpoint for requests of Lockgate's own, whether the server is switched on or not.

        `key` is that of `credential`; empty for none. Raises `UpstreamFailed`.
        """
        async with AsyncExitStack() as stack:
            if server.transport == "stdio":
                reach = await stack.enter_async_context(
                    self._processes.question(server.slug, key, credential)
                )
                made = (await reach()).endpoint or self._translated(partial(Reaching, reach))
            else:
                decision = Decision(True, "allowed", "", 0, "", server, None, key)
                made, _ = await self._make(NOBODY, decision, credential)
            yield await stack.enter_async_context(_closing(made))

    def _shared_for(self, caller: Caller, decision: Decision) -> _HeldEndpoint:
        server, claims = _server_of(decision), caller.claims
        key: tuple[object, ...] = (server.slug, claims.subject, claims.grant, decision.credential)
        if server.transport == "stdio" and decision.credential:  # it stands in the process's environment
            key += (self._tables.credentials[decision.credential].version,)
        shared = self._endpoints.get(key)
        if shared is None or way(shared.server) != way(server):
            if shared:
                self._outdate(key, shared)
            shared = self._endpoints[key] = _HeldEndpoint(claims, server)
        return shared

    async def _make(self, caller: Caller, decision: Decision, credential: Opened) -> tuple[Endpoint, Renew]:
        server = _server_of(decision)
        if server.transport == "stdio":
            reach = partial(self._reach, caller, decision, credential, "modern")
            return self._translated(partial(Reaching, reach)), _nothing
        if server.transport == "streamable_http" and await self.spoken(server, credential) != "legacy":
            endpoint = self._modern(server, credential)
            return endpoint, self._renewing(endpoint)
        standing = always if caller is NOBODY else self._standing(caller, server)
        opener = Opener(self.route(server, credential, standing), SESSIONS[server.transport])
        return self._translated(opener), self._renewing(opener)

    def _translated(self, opener: OpenSession) -> Endpoint:
        """An endpoint over sessions of the legacy era; this replica holds the calls that wait in it."""
        return ModernOverLegacy(opener, f"{HELD}.{self._replica()}")

    async def _reach(self, caller: Caller, decision: Decision, credential: Opened, client: Era) -> Reached:
        slug, user = _server_of(decision).slug, caller.claims.subject
        return await self._processes.reach(slug, user, decision.credential, credential, client)

    def _modern(self, server: Server, credential: Opened) -> ModernEndpoint:
        parameters = self._parameters.setdefault((server.slug, server.url), Parameters())
        return ModernEndpoint(self.route(server, credential), parameters)

    def _renewing(self, routed: _Routed) -> Renew:
        def renew(decision: Decision, credential: Opened) -> None:
            if routed.route.credential is not credential:
                routed.route = self.route(_server_of(decision), credential, routed.route.standing)

        return renew

    # -- letting go -------------------------------------------------------------------------------

    def review(self) -> None:
        """The log has changed: let go of what is reached in another way now, or not by that caller."""
        for held, shared in list(self._endpoints.items()):
            decision = self._decide(shared.claims, Call(shared.server.slug))
            if not decision.allowed or decision.server is None or way(decision.server) != way(shared.server):
                self._outdate(held, shared)

    def close_idle(self, seconds: float) -> None:
        """Let go of endpoints that nobody has used for so long."""
        limit = elapsed() - seconds
        for key, shared in list(self._endpoints.items()):
            if not shared.users and shared.used < limit and getattr(shared.endpoint, "idle", True):
                self._outdate(key, shared)

    def _outdate(self, key: tuple[object, ...], shared: _HeldEndpoint) -> None:
        self._endpoints.pop(key, None)
        shared.outdated = True
        if not shared.users:
            self._let_go(shared)

    def _let_go(self, shared: _HeldEndpoint) -> None:
        if shared.endpoint:
            self._closing.spawn(shared.endpoint.close())

    async def stop(self) -> None:
        """Close everything, whoever uses it."""
        for key, shared in list(self._endpoints.items()):
            shared.users = 0
            self._outdate(key, shared)
        await self._closing.join()


@asynccontextmanager
async def _closing(endpoint: Endpoint) -> AsyncIterator[Endpoint]:
    try:
        yield endpoint
    finally:
        await endpoint.close()


def _nothing(_: Decision, __: Opened) -> None:
    """A process keeps the credential with which it was started."""


def _server_of(decision: Decision) -> Server:
    assert decision.server
    return decision.server
