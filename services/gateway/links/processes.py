"""The processes of stdio servers at this replica: started on demand, shared as the server's entry says, ended
when nobody uses them, and at once when the log no longer has them as they are.
"""

import asyncio
import hashlib
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from pathlib import Path

import msgspec

from libs.common.bus import Bus
from libs.common.control.entries import ORGANIZATION, Server
from libs.common.control.tables import Tables
from libs.common.lifecycle import Tasks, cancel
from libs.common.requests import LIST_PROCESSES, ListProcesses, ProcessList
from services.gateway.connection import UpstreamFailed
from services.gateway.credentials import Opened
from services.gateway.links.backoff import Backoff
from services.gateway.links.instance import Instance, Key, Timeouts
from services.gateway.links.port import Emit, Era, OnClosed, OnFailed, Reached
from services.gateway.links.process import Limits, Program
from services.gateway.links.shared_endpoint import SharedEndpoint
from services.gateway.links.shared_session import SharedSession
from services.gateway.links.sharing import Sharing
from services.gateway.links.stdio import PipeSession
from services.gateway.review import EVERYTHING, Review
from services.gateway.settings import GatewaySettings

DIRECTORY = "stdio-servers"  # in the data directory; holds the working directories
SWEEP = 1.0  # seconds
SETTLED = 1.0  # seconds unused after which a process may make room for another
REPORTED_FOR = 600.0  # seconds that administrators see a process which has ended
REPORT_BYTES = 256 * 1024  # of standard error in one report, of all processes together

# Why a process was ended.
CHANGED = "its process was ended, because the server or its credential changed"
IDLE = "its process was stopped, because nobody used it"
CLOSED = "the session was closed"
STOPPING = "the gateway is stopping"
ANSWERED = "the question is answered for which it was started"


class Processes:
    """All of them. A part (libs.common.lifecycle); `review` is a follower's callback."""

    def __init__(self, settings: GatewaySettings, tables: Tables, complete: Callable[[], bool]) -> None:
        """`complete`: all of the log is known."""
        self._settings, self._tables = settings, tables
        self.review = Review(complete, self._review, {"server", "credential", "org", "user"})
        self._timeouts = Timeouts(settings.gateway_stdio_start_timeout, write=30.0)
        self._instances: dict[Key, Instance] = {}
        self._backoffs: dict[Key, Backoff] = {}
        # (slug, configuration, era of the client): what is known to speak to it in the legacy era.
        self._legacy: set[tuple[str, str, Era]] = set()
        self._sessions, self._questions = count(1), count(1)
        self._stopping = False
        self._sweeper: asyncio.Task[None] | None = None
        self._ends = Tasks()

    async def start(self) -> None:
        for leftover in self._directory.glob("*/session-*"):
            shutil.rmtree(leftover, ignore_errors=True)
        self._sweeper = asyncio.create_task(self._sweep(), name="stdio-sweeper")

    async def stop(self) -> None:
        """End all processes, politely; a few seconds at the most."""
        self._stopping = True
        await cancel(self._sweeper)
        for instance in self._instances.values():
            self._ends.spawn(instance.stop(_ended(STOPPING)))
        await self._ends.join()

    async def serve(self, bus: Bus, replica: str) -> None:
        """Tell administrators what runs at `replica`, which is this one."""

        async def answer(query: ListProcesses) -> ProcessList:
            found = [i for i in self._instances.values() if query.slug in {"", i.key.slug}]
            most = REPORT_BYTES // max(1, len(found))
            enabled = self._settings.gateway_stdio == "on"
            return ProcessList(
                replica=replica, enabled=enabled, processes=[instance.report(most) for instance in found]
            )

        await bus.serve(LIST_PROCESSES, ListProcesses, answer, everyone=True)

    # -- reaching a server --------------------------------------------------------------------------

    async def reach(
        self, slug: str, user: str, credential: str, opened: Opened, client: Era, *, question: int = 0
    ) -> Reached:
        """The server `slug` for `user`, whose client speaks `client`. Raises `UpstreamFailed`.

        `credential` is the key of the credential to use (ladder.Decision), `opened` what it holds. `question`
        is the number of an administrator's (see there).
        """
        server = self._server(slug, question)
        own = server.processes == "session" and not question
        key = self._key(server, user, credential, opened, question)
        key = key._replace(client=client if own else "modern")
        known = (slug, key.configuration, key.client)
        if own and known in self._legacy:
            return Reached("legacy", open=self._opener(key, server, opened))
        instance = self._instance(key, server, opened)
        speaker = await instance.shared(self._order(known))
        if not isinstance(speaker, Sharing):
            return Reached("modern", endpoint=SharedEndpoint(speaker, user))
        self._legacy.add(known)
        if own:
            self._ends.spawn(instance.stop(_ended(IDLE)))  # it was started only to find that out
            return Reached("legacy", open=self._opener(key, server, opened))
        return Reached("legacy", open=lambda got, end, _: SharedSession(speaker, user, got, end))

    @asynccontextmanager
    async def question(
        self, slug: str, credential: str, opened: Opened
    ) -> AsyncIterator[Callable[[], Awaitable[Reached]]]:
        """How to reach the server `slug` for an administrator who asks what it offers.

        The command of a server that is off runs until this is left, for nobody else.
        """
        server = self._tables.servers.get(slug)
        number = 0 if server and server.enabled else next(self._questions)
        earlier = [i for i in self._instances.values() if i.key.slug == slug and i.key.question]
        for instance in [i for i in earlier if not i.live]:  # administrators see the newest only
            self._forget(instance.key)
        try:
            yield partial(self.reach, slug, "", credential, opened, "modern", question=number)
        finally:
            for instance in [i for i in self._instances.values() if number and i.key.question == number]:
                self._ends.spawn(instance.stop(_ended(ANSWERED)))

    def _server(self, slug: str, question: int) -> Server:
        if self._settings.gateway_stdio == "off":
            detail = "this gateway runs no commands; LOCKGATE_GATEWAY_STDIO=on would let it"
            raise UpstreamFailed("stdio_disabled", detail)
        if self._stopping:
            raise _ended(STOPPING)
        server = self._tables.servers.get(slug)
        if server is None or not (server.enabled or question):
            raise UpstreamFailed("server_disabled", "it is off")
        if not self._tables.org.enabled:
            raise UpstreamFailed("organization_disabled", "everything is switched off")
        return server

    def _key(self, server: Server, user: str, credential: str, opened: Opened, question: int) -> Key:
        """Of the process that serves `user`. Raises `UpstreamFailed` where what was decided has changed."""
        everybody = server.processes == "shared" and credential in {"", f"{server.slug}.{ORGANIZATION}"}
        owner = "" if everybody else user
        configuration = configuration_of(server)
        key = Key(server.slug, owner, configuration, credential, opened.version, question=question)
        if not self._stands(key):
            raise UpstreamFailed("credential_unavailable", "its credential changed meanwhile")
        return key

    def _order(self, known: tuple[str, str, Era]) -> tuple[Era, ...]:
        """Which era to ask for first: the modern one of a server of which nothing is known, but that of the
        client where it has the process to itself."""
        if known in self._legacy or known[2] == "legacy":
            return ("legacy", "modern")
        return ("modern", "legacy")

    def _opener(self, key: Key, server: Server, opened: Opened) -> Callable[..., PipeSession]:
        def open(on_message: Emit, on_closed: OnClosed, _: OnFailed) -> PipeSession:
            own = key._replace(session=next(self._sessions))
            return PipeSession(
                lambda: self._instance(own, server, opened).run(),
                lambda: self._release(own),
                on_message,
                on_closed,
            )

        return open

    def _instance(self, key: Key, server: Server, opened: Opened) -> Instance:
        """The instance for `key`; where it has no process, there is room for one. Raises `UpstreamFailed`."""
        if self._stopping or not self._stands(key):
            raise _ended(STOPPING if self._stopping else CHANGED)
        instance = self._instances.get(key)
        if instance is None or not instance.live:
            self._make_room(key.owner)
        if instance is None:
            backoff = self._backoffs.setdefault(key._replace(session=0, question=0), Backoff())
            program = self._program(key, server, opened)
            instance = Instance(key, program, self._timeouts, backoff, alone=key.session > 0)
            self._instances[key] = instance
        return instance

    def _program(self, key: Key, server: Server, opened: Opened) -> Program:
        settings = self._settings
        limits = Limits(
            settings.gateway_stdio_message_limit,
            settings.gateway_stdio_open_files,
            settings.gateway_stdio_address_space,
            settings.gateway_stdio_tasks,
        )
        directory = self._place(key)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        environment = server.environment | dict(opened.environment)
        return Program(server.command, directory, limits, environment, opened.redactor)

    def _place(self, key: Key) -> Path:
        """The working directory: one for each server and user, or for a session as long as it lives."""
        owner = f"user-{_digest(key.owner)}" if key.owner else "shared"
        return self._directory / key.slug / (f"session-{key.session}" if key.session else owner)

    @property
    def _directory(self) -> Path:
        return (self._settings.data_dir / DIRECTORY).absolute()

    def _make_room(self, owner: str) -> None:
        """Raises `UpstreamFailed` when all processes that may run are in use."""
        live = [instance for instance in self._instances.values() if instance.live]
        theirs = [instance for instance in live if owner and instance.key.owner == owner]
        limits = self._settings.gateway_stdio_user_processes, self._settings.gateway_stdio_processes
        for running, limit in zip((theirs, live), limits, strict=True):
            idle = [instance for instance in running if instance.live and instance.idle >= SETTLED]
            if len(running) < limit:
                continue
            if not idle:
                raise UpstreamFailed("upstream_busy", f"all {limit} processes that may run are in use")
            self._ends.spawn(max(idle, key=lambda instance: instance.idle).stop(_ended(IDLE)))

    # -- ending them --------------------------------------------------------------------------------

    def _review(self, key: str) -> None:
        """Kill what the log no longer has as it is."""
        self._legacy = {known for known in self._legacy if key not in {EVERYTHING, f"server.{known[0]}"}}
        for instance in [i for i in self._instances.values() if not self._stands(i.key)]:
            instance.kill(_ended(CHANGED))
            self._ends.spawn(instance.gone())
            self._forget(instance.key)

    def _stands(self, key: Key) -> bool:
        """Whether the log has everything as it was when `key` was made."""
        server, credential = self._tables.servers.get(key.slug), self._tables.credentials.get(key.credential)
        if not self._tables.org.enabled or server is None or not (server.enabled or key.question):
            return False
        if configuration_of(server) != key.configuration:
            return False
        if key.credential and not (
            credential and credential.version == key.version and credential.is_for(server)
        ):
            return False
        user = self._tables.users.get(key.owner)
        return not key.owner or (user is not None and user.active)

    async def _release(self, key: Key) -> None:
        """End the process of a session that was closed."""
        if instance := self._instances.get(key):
            await instance.stop(_ended(CLOSED))
            self._forget(key)

    def _forget(self, key: Key) -> None:
        self._instances.pop(key, None)
        if key.session:
            self._ends.spawn(asyncio.to_thread(shutil.rmtree, self._place(key), ignore_errors=True))

    async def _sweep(self) -> None:
        """Stop what nobody uses any more."""
        while True:
            await asyncio.sleep(SWEEP)
            for key, instance in list(self._instances.items()):
                server, idle = self._tables.servers.get(key.slug), instance.idle
                if instance.live and server and idle >= server.idle_stop:
                    self._ends.spawn(instance.stop(_ended(IDLE)))
                elif not instance.live and idle >= REPORTED_FOR:
                    self._forget(key)
            for key in [key for key, backoff in self._backoffs.items() if backoff.forgotten]:
                del self._backoffs[key]


def configuration_of(server: Server) -> str:
    """A digest of what makes a running process another one than `server` asks for."""
    parts = [server.command, sorted(server.environment.items()), server.processes, server.auth]
    return _digest(msgspec.json.encode(parts).decode())


def _ended(why: str) -> UpstreamFailed:
    return UpstreamFailed("upstream_broke_off", why)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
