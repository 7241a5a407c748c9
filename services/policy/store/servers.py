"""Servers: what is said of them, and what they offer."""

from collections.abc import Collection, Iterable, Iterator, Mapping

from sqlmodel import Session, col, select

from libs.common.clock import iso, now
from libs.common.control.entries import DEFAULT_GROUP, Off, ServerAccess
from services.policy import sights
from services.policy.definition import Definition, InitialAccess
from services.policy.domain import ANYTHING, Change, Precondition, Server, ServerExists
from services.policy.features import Features, Kind
from services.policy.pins import NOTHING, Sight
from services.policy.store import pin_rows, switch_rows
from services.policy.store.database import Database
from services.policy.store.groups import set_access
from services.policy.store.rows import group_row, server_row_of
from services.policy.store.size import fitting
from services.policy.tables import AccessRow, ServerRow, define, offer, server_of, server_row


class Servers:
    """Registered servers, by slug."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self, after: str = "", limit: int = 100) -> list[Server]:
        """Servers in the order of their slugs, from the one following `after`."""
        query = select(ServerRow).where(ServerRow.slug > after).order_by(col(ServerRow.slug)).limit(limit)
        with self._database.read() as session:
            return list(load_all(session, session.exec(query)))

    def slugs(self) -> frozenset[str]:
        """Those of all servers, without what is known of them."""
        with self._database.read() as session:
            return frozenset(session.exec(select(ServerRow.slug)))

    def get(self, slug: str) -> Server:
        """Raises `UnknownServer`."""
        with self._database.read() as session:
            return load(session, server_row_of(session, slug))

    def put(
        self,
        slug: str,
        definition: Definition,
        default_access: InitialAccess = "none",
        precondition: Precondition = ANYTHING,
    ) -> Change[Server]:
        """Create the server or change its definition. `default_access` counts only when it is created."""
        with self._database.write() as (session, version):
            row = session.get(ServerRow, slug)
            precondition.check(row.version if row else None, ServerExists)
            keys = [f"server.{slug}"]
            if default_access != "none":  # also when repeated: the first request may not have got far
                keys.append(f"group.{DEFAULT_GROUP}")
            if row is None:
                row = _create(session, version, slug, definition, default_access)
                return Change(None, fitting(load(session, row)), tuple(keys))
            before = load(session, row)
            if before.definition != definition:
                define(row, definition)
                row.version = version
            return Change(before, fitting(load(session, row)), tuple(keys))

    def switch(
        self, slug: str, off: Off | None, by: str, precondition: Precondition = ANYTHING
    ) -> Change[Server]:
        """Turn it `off`, or on. Raises `UnknownServer`."""
        with self._database.write() as (session, version):
            row = server_row_of(session, slug)
            precondition.check(row.version)
            before = load(session, row)
            if switch_rows.turn(session, version, "server", slug, off, by):
                row.version = version
            return Change(before, load(session, row), (f"server.{slug}",))

    def set_features(
        self,
        slug: str,
        features: Features | None,
        sight: Sight = NOTHING,
        precondition: Precondition = ANYTHING,
    ) -> Change[Server]:
        """What it offers was seen: all `features`, or none of them but the tools of `sight`.

        Raises `UnknownServer`.
        """
        with self._database.write() as (session, version):
            row = server_row_of(session, slug)
            precondition.check(row.version)
            before = load(session, row)
            offered, pins = sights.after(before, sight, features, iso(now()))
            pin_rows.save(session, slug, pins, sight.texts)
            if pins or before.features != offered:
                offer(row, offered)
                row.version = version
            return Change(before, fitting(load(session, row)), (f"server.{slug}",))

    def name_features(
        self, slug: str, names: Mapping[Kind, Collection[str]], precondition: Precondition = ANYTHING
    ) -> Change[Server]:
        """Say what it offers of some kinds. Raises `UnknownServer`, and `BadRequest` for bad names."""
        with self._database.write() as (session, version):
            row = server_row_of(session, slug)
            precondition.check(row.version)
            before = load(session, row)
            features = before.features.renamed(names)
            if before.features != features:
                offer(row, features)
                row.version = version
            return Change(before, fitting(load(session, row)), (f"server.{slug}",))

    def delete(self, slug: str, precondition: Precondition = ANYTHING) -> Change[Server]:
        """Delete the server and every group's access to it. A server that is not there is no error."""
        with self._database.write() as (session, version):
            row = session.get(ServerRow, slug)
            precondition.check(row.version if row else None)
            keys = [f"server.{slug}"]
            if row is None:
                return Change(None, None, tuple(keys))
            before = load(session, row)
            for access in session.exec(select(AccessRow).where(AccessRow.server_slug == slug)).all():
                group_row(session, access.group_id).version = version
                keys.append(f"group.{access.group_id}")
                session.delete(access)
            switch_rows.forget(session, "server", slug)
            pin_rows.forget(session, slug)
            session.flush()
            session.delete(row)
            return Change(before, None, tuple(keys))


def _create(
    session: Session, version: int, slug: str, definition: Definition, default_access: InitialAccess
) -> ServerRow:
    row = server_row(slug, definition, version)
    session.add(row)
    session.flush()
    if default_access != "none":
        set_access(session, DEFAULT_GROUP, slug, ServerAccess(default=default_access))
        group_row(session, DEFAULT_GROUP).version = version
    return row


def load(session: Session, row: ServerRow) -> Server:
    off = switch_rows.off(session, "server", row.slug)
    return server_of(row, off, switch_rows.tools_off(session, row.slug), pin_rows.pins(session, row.slug))


def load_all(session: Session, rows: Iterable[ServerRow]) -> Iterator[Server]:
    off, tools = switch_rows.all_off(session, "server"), switch_rows.all_tools_off(session)
    pins = pin_rows.all_pins(session)
    return (
        server_of(row, off.get(row.slug), tools.get(row.slug, {}), pins.get(row.slug, {})) for row in rows
    )
