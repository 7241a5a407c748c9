"""What administrators say of the definitions of tools."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from sqlmodel import Session

from services.policy.domain import ANYTHING, Change, Precondition, Server
from services.policy.features import Features
from services.policy.pins import Pin, UnknownTool
from services.policy.store import pin_rows
from services.policy.store.database import Database
from services.policy.store.rows import server_row_of
from services.policy.store.servers import load
from services.policy.store.size import fitting
from services.policy.tables import PinRow, ServerRow, offer


class Defined(NamedTuple):
    """A tool's pin, and the two definitions that it is about; empty where they were too long to be kept."""

    pin: Pin
    approved: str
    offered: str


class Waiting(NamedTuple):
    """A tool that waits for an administrator."""

    server: str
    tool: str
    pin: Pin


class Pins:
    """The pins of all servers' tools."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def waiting(self, after: tuple[str, str] = ("", ""), limit: int = 100) -> list[Waiting]:
        """Those that nobody has decided on, by server and tool, from the one following `after`."""
        with self._database.read() as session:
            return [Waiting(*found) for found in pin_rows.waiting(session, after, limit)]

    def get(self, slug: str, tool: str) -> Defined:
        """Raises `UnknownServer` and `UnknownTool`."""
        with self._database.read() as session:
            pin = _pin(load(session, server_row_of(session, slug)), tool)
            row = session.get(PinRow, (slug, tool))
            return Defined(pin, row.definition if row else "", row.offered_definition if row else "")

    def approve(
        self, slug: str, digests: Mapping[str, str], precondition: Precondition = ANYTHING
    ) -> Change[Server]:
        """Each of these tools may be used if it is as the digest says, the new definition or the old.

        Raises `UnknownServer`, `UnknownTool` and `NotOffered`, and changes nothing then.
        """
        return self._decide(slug, digests, lambda pin, *what: pin.approved(*what), precondition)

    def reject(
        self, slug: str, tool: str, digest: str, precondition: Precondition = ANYTHING
    ) -> Change[Server]:
        """The tool stays held, and waits for nobody. Raises as `approve` does."""
        return self._decide(slug, {tool: digest}, lambda pin, *what: pin.refused(*what), precondition)

    def forget(self, slug: str, tool: str, precondition: Precondition = ANYTHING) -> Change[Server]:
        """The tool is as if it had never been seen. Raises `UnknownServer` and `UnknownTool`."""
        with self._database.write() as (session, version):
            row, before = self._before(session, slug, precondition)
            _pin(before, tool)
            kept = tuple(each for each in before.features.tools if each.name != tool)
            offer(row, Features(kept, before.features.prompts, before.features.resources))
            pin_rows.forget(session, slug, tool)
            row.version = version
            return Change(before, load(session, row), (f"server.{slug}",))

    def _decide(
        self,
        slug: str,
        digests: Mapping[str, str],
        decide: Callable[[Pin, str, int], Pin],
        precondition: Precondition,
    ) -> Change[Server]:
        with self._database.write() as (session, version):
            row, before = self._before(session, slug, precondition)
            present = {tool: _pin(before, tool) for tool in digests}
            decided = {tool: decide(pin, digests[tool], version) for tool, pin in present.items()}
            changed = {tool: pin for tool, pin in decided.items() if pin != present[tool]}
            if changed:
                pin_rows.save(session, slug, changed, {})
                row.version = version
            return Change(before, fitting(load(session, row)), (f"server.{slug}",))

    @staticmethod
    def _before(session: Session, slug: str, precondition: Precondition) -> tuple[ServerRow, Server]:
        row = server_row_of(session, slug)
        precondition.check(row.version)
        return row, load(session, row)


def _pin(server: Server, tool: str) -> Pin:
    try:
        return server.tools[tool]
    except KeyError:
        raise UnknownTool(f"{server.slug} has no tool that is called {tool[:80]!r}.") from None
