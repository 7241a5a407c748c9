"""What this replica has to tell policy about tools: kept until policy has taken it, once each."""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import NamedTuple

import structlog

from libs.common.bus import Bus, Refused
from libs.common.control.entries import Server
from libs.common.control.tables import Tables
from libs.common.definitions import LONGEST, Definition, pack
from libs.common.errors import Unavailable
from libs.common.lifecycle import cancel
from libs.common.requests import REPORT_TOOLS, ReportTools, ToolsReported
from services.gateway.pins.shown import Shown

log = structlog.get_logger(__name__)

ROOM = 600_000  # bytes of definitions in a report; JSON makes them a third longer
AT_ONCE = 200  # definitions in a report
MOST_OWED = 2000  # definitions of one server's new tools, until its entry changes
CHANGE_EVERY = 5.0  # seconds between two reports that a server's list has changed, however often it says so
RETRY_FIRST, RETRY_LAST = 0.5, 30.0  # seconds


@dataclass(slots=True)
class _Owed:
    """What is to be said of one server. Definitions by name and digest: a list can show two of one name."""

    version: int = 0
    definitions: dict[tuple[str, str], Definition] = field(default_factory=dict)
    changed: bool = False


class _Told(NamedTuple):
    """At which version of the entry something was told, and from which on it is taken into account."""

    at: int
    taken: int

    def is_news(self, version: int) -> bool:
        """Whether it should be told again by who sees the entry at `version`: another one, and yet not so."""
        return version != self.at and version >= self.taken


class Reports:
    """Sends them in the background. `on_taken(slug, names, version)` is called with policy's answers."""

    def __init__(self, bus: Bus, tables: Tables) -> None:
        self.on_taken: Callable[[str, Collection[str], int], None] = lambda *_: None
        self._bus, self._tables = bus, tables
        self._owed: dict[str, _Owed] = {}
        self._told: dict[str, dict[tuple[str, str], _Told]] = {}  # what policy has heard of each server
        self._resting: set[str] = set()  # servers whose changes were reported just now
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="tool-reports")

    async def stop(self) -> None:
        await cancel(self._task)

    def owe(self, server: Server, tool: Shown, *, pinned: bool) -> None:
        """Policy should know of `tool`, which the entry `server` does not know so, or pins to another."""
        key, told = (tool.name, tool.digest), self._told.get(server.slug, {})
        owed = self._owed.setdefault(server.slug, _Owed())
        if key in owed.definitions or (key in told and not told[key].is_news(server.version)):
            return
        if pinned or len(owed.definitions) + len(told) < MOST_OWED:
            text = tool.text
            text = text if len(text) <= LONGEST else ""
            owed.definitions[key] = Definition(name=tool.name, digest=tool.digest, text=text)
            owed.version = server.version
            self._wake.set()

    def owe_change(self, server: Server) -> None:
        """Policy should know that `server` says that its list of tools has changed."""
        owed = self._owed.setdefault(server.slug, _Owed())
        owed.changed, owed.version = True, max(owed.version, server.version)
        self._wake.set()

    def forget(self, slug: str) -> None:
        """The server's entry is another one: what it does not say now was told in vain."""
        self._told.pop(slug, None)

    # -- sending ----------------------------------------------------------------------------------

    async def _run(self) -> None:
        delay = RETRY_FIRST
        while True:
            await self._wake.wait()
            self._wake.clear()
            if all([await self._tried(slug) for slug in list(self._owed)]):
                delay = RETRY_FIRST
                continue
            await asyncio.sleep(delay)
            delay = min(delay * 2, RETRY_LAST)
            self._wake.set()

    async def _tried(self, slug: str) -> bool:
        """Whether policy knows now what is owed of one server, or never will."""
        try:
            await self._report(slug)
        except (Unavailable, Refused) as error:
            if slug in self._tables.servers:
                log.info("tools_not_reported", server=slug, detail=error.detail)
                return False
        except ValueError as error:  # that cannot be packed, or an answer of another version
            log.warning("tools_cannot_be_reported", server=slug, error=str(error))
        else:
            return True
        del self._owed[slug]
        return True

    async def _report(self, slug: str) -> None:
        """Say all that is owed of one server. Raises `Unavailable`, `Refused` and `TooLong`."""
        while (owed := self._owed.get(slug)) and (owed.definitions or self._says_change(slug, owed)):
            sent, changed = dict(list(owed.definitions.items())[:AT_ONCE]), self._says_change(slug, owed)
            await self._send(slug, owed.version, list(sent.values()), changed)
            for key in sent:
                owed.definitions.pop(key, None)
            if changed:
                owed.changed = False
                self._rest(slug)
        if owed and not owed.changed:
            del self._owed[slug]

    async def _send(self, slug: str, version: int, definitions: list[Definition], changed: bool) -> None:
        packed = await asyncio.to_thread(pack, definitions, ROOM) if definitions else b""
        report = ReportTools(slug=slug, version=version, definitions=packed, changed=changed)
        answer = await self._bus.request(REPORT_TOOLS, report, ToolsReported, timeout=10.0)
        told, heard = self._told.setdefault(slug, {}), _Told(version, answer.version)
        told |= {(each.name, each.digest): heard for each in definitions}
        self.on_taken(slug, {each.name for each in definitions}, answer.version)

    def _says_change(self, slug: str, owed: _Owed) -> bool:
        return owed.changed and slug not in self._resting

    def _rest(self, slug: str) -> None:
        def rested() -> None:
            self._resting.discard(slug)
            self._wake.set()

        self._resting.add(slug)
        asyncio.get_running_loop().call_later(CHANGE_EVERY, rested)
