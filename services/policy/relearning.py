"""Definitions of tools are looked at again and again: now and then, when a server says that its list has
changed, and whenever a gateway passes a list on that shows something else than the control log says."""

import asyncio
import random
from dataclasses import replace
from functools import partial

import structlog

from libs.common.bus import Bus
from libs.common.definitions import unpack
from libs.common.errors import BadRequest, LockgateError
from libs.common.lifecycle import Tasks
from libs.common.requests import REPORT_TOOLS, ReportTools, ToolsReported
from services.policy.changes import POLICY, Changes
from services.policy.domain import Server
from services.policy.pins import Sight
from services.policy.sights import after
from services.policy.store import PolicyStore
from services.policy.upstream import FeaturesUnknown, Upstreams

log = structlog.get_logger(__name__)

AT_ONCE = 4  # servers
REST = 10.0  # seconds after which a server may be asked again
PAGE = 200


def _is_worth_it(server: Server) -> bool:
    """A command is not run just to look at it: those of stdio servers are looked at when they are used."""
    settings = server.definition
    return server.enabled and settings.pinning == "enforce" and settings.transport != "stdio"


class Relearning:
    """Answers `policy.report_tools`, and asks servers for their tools every `every` seconds; never if it is
    0. Several processes of the service do no harm to each other."""

    def __init__(
        self, bus: Bus, store: PolicyStore, upstreams: Upstreams, changes: Changes, *, every: float
    ) -> None:
        self._bus, self._store, self._upstreams, self._changes = bus, store, upstreams, changes
        self._every = every
        self._places = asyncio.Semaphore(AT_ONCE)
        self._due: set[str] = set()  # servers that are being asked, or rest
        self._again: set[str] = set()  # those of them that have to be asked once more
        self._tasks = Tasks()

    async def start(self) -> None:
        await self._bus.serve(REPORT_TOOLS, ReportTools, self.report, at_once=AT_ONCE)
        if self._every:
            self._tasks.spawn(self._repeat())

    async def stop(self) -> None:
        await self._tasks.cancel()

    async def report(self, report: ReportTools) -> ToolsReported:
        """A gateway saw something. Raises `UnknownServer` and `BadRequest`."""
        server = await asyncio.to_thread(self._store.servers.get, report.slug)
        if report.definitions:
            try:
                definitions = await asyncio.to_thread(unpack, report.definitions)
            except ValueError as error:
                raise BadRequest(str(error)) from error
            server = await self._see(server, Sight(definitions=definitions, version=report.version))
        if report.changed:
            self.soon(report.slug)
        return ToolsReported(version=server.version)

    def soon(self, slug: str) -> None:
        """Ask the server for its tools, unless that was done just now; then a little later."""
        if slug in self._due:
            self._again.add(slug)
        else:
            self._due.add(slug)
            self._tasks.spawn(self._learn(slug))

    async def _repeat(self) -> None:
        while True:
            jitter = random.uniform(0.8, 1.2)  # noqa: S311  # so that not all processes ask at once
            await asyncio.sleep(self._every * jitter)
            try:
                await self._ask_all()
            except Exception:
                log.exception("relearning_failed")

    async def _ask_all(self) -> None:
        slug = ""
        while servers := await asyncio.to_thread(self._store.servers.list, slug, PAGE):
            slug = servers[-1].slug
            for server in filter(_is_worth_it, servers):
                self.soon(server.slug)

    async def _learn(self, slug: str) -> None:
        try:
            async with self._places:
                await self._ask(slug)
            await asyncio.sleep(REST)
        except Exception:
            log.exception("relearning_failed", server=slug)
        finally:
            self._due.discard(slug)
        if slug in self._again:
            self._again.discard(slug)
            self.soon(slug)

    async def _ask(self, slug: str) -> None:
        try:
            server = await asyncio.to_thread(self._store.servers.get, slug)
            offer = await self._upstreams.offer(server)
            await self._see(server, replace(offer.sight, adopt=False))
        except FeaturesUnknown as error:
            log.info("tools_unknown", server=slug, detail=error.detail)
        except LockgateError as error:  # it was deleted meanwhile, say
            log.warning("tools_not_taken", server=slug, error=str(error))

    async def _see(self, server: Server, sight: Sight) -> Server:
        """Take in what was seen. Nothing is written, or recorded, where it changes nothing."""
        changed = after(server, sight, None, "")[1]
        if not changed:
            return server
        held = any(pin.held for pin in changed.values())
        write = partial(self._store.servers.set_features, server.slug, None, sight)
        done = await self._changes.make(POLICY, "tools_quarantined" if held else "tools_pinned", write)
        assert done.after
        return done.after
