"""What upstreams have shown of tools at this replica that is not what was approved.

The moment a list shows a tool otherwise than its pin says, the tool is hidden and refused here, and policy is
told, whose answer is a quarantine in the control log for all replicas. What was seen once stays seen,
whatever the next list shows: an upstream that alternates gains nothing. It is forgotten when policy has had
its say.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial

from libs.common.control.entries import Server
from libs.common.control.tables import Tables
from libs.common.decision.ladder import way
from libs.common.decision.pins import is_nameable
from services.gateway.lists import Showed
from services.gateway.pins.reports import Reports
from services.gateway.pins.shown import Shown
from services.gateway.protocol import TOOLS_CHANGED


@dataclass(slots=True)
class _Mismatch:
    """The pin that a tool broke, how its server was reached, and the version of the server's entry that takes
    the report into account, once policy has said."""

    pinned: str
    way: tuple[object, ...]
    version: int | None = None

    def is_settled(self, server: Server | None, name: str) -> bool:
        """Whether `server`, as its entry is now, says what is to become of it."""
        if server is None or server.pinning == "off" or way(server) != self.way:
            return True
        if server.tools.get(name) != self.pinned:
            return True
        known = self.version is not None and server.version >= self.version
        return known and name not in server.quarantined


class Pins:
    """One replica's. `seen` is for the ladder: the digests that differ from their pins, so at most one for
    each tool that the control log names."""

    def __init__(self, tables: Tables, reports: Reports, on_mismatch: Callable[[str], None]) -> None:
        """`on_mismatch(slug)` is called when a tool of that server is not to be used any more."""
        self.seen: dict[tuple[str, str], str] = {}
        self._tables, self._reports, self._on_mismatch = tables, reports, on_mismatch
        self._mismatches: dict[str, dict[str, _Mismatch]] = {}  # by server and tool
        reports.on_taken = self._taken

    def watching(self, slug: str) -> Showed | None:
        """What takes in the lists of the server `slug`, if somebody has to."""
        server = self._tables.servers.get(slug)
        return partial(self._showed, server) if server and server.pinning != "off" else None

    def heard(self, slug: str, message: bytes) -> None:
        """The server `slug` says `message`, perhaps that its list of tools has changed."""
        if TOOLS_CHANGED in message:
            self.said_changed(slug)

    def said_changed(self, slug: str) -> None:
        server = self._tables.servers.get(slug)
        if server and server.pinning != "off":
            self._reports.owe_change(server)

    def _showed(self, server: Server, tools: Sequence[Shown]) -> Collection[str]:
        """A list of `server` shows `tools`. Returns the names that nobody should see: that stand for two of
        them, or that no administrator could tell from another."""
        first: dict[str, str] = {}
        hidden = set()
        for tool in tools:
            if first.setdefault(tool.name, tool.digest) != tool.digest:
                hidden.add(tool.name)
            if not is_nameable(tool.name):
                hidden.add(tool.name)
            elif server.tools.get(tool.name) != tool.digest and tool.name not in server.quarantined:
                self._differs(server, tool)
        return hidden

    def _differs(self, server: Server, tool: Shown) -> None:
        """`tool` is new, changed, or known by its name only."""
        pinned = server.tools.get(tool.name, "")
        if pinned:
            of_server = self._mismatches.setdefault(server.slug, {})
            if tool.name in of_server:
                return
            of_server[tool.name] = _Mismatch(pinned, way(server))
            self.seen[server.slug, tool.name] = tool.digest
            self._on_mismatch(server.slug)
        self._reports.owe(server, tool, pinned=bool(pinned))

    # -- what policy said -------------------------------------------------------------------------

    def review(self, key: str, value: bytes | None, revision: int) -> None:
        """A follower's callback."""
        kind, _, slug = key.partition(".")
        if kind == "server":
            self._reports.forget(slug)
            self._settle(slug)

    def _taken(self, slug: str, names: Collection[str], version: int) -> None:
        of_server = self._mismatches.get(slug, {})
        for name in of_server.keys() & names:
            of_server[name].version = version
        self._settle(slug)

    def _settle(self, slug: str) -> None:
        of_server = self._mismatches.get(slug)
        if not of_server:
            return
        server = self._tables.servers.get(slug)
        for name, mismatch in list(of_server.items()):
            if mismatch.is_settled(server, name):
                del of_server[name], self.seen[slug, name]
        if not of_server:
            del self._mismatches[slug]
