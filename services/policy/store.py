"""Every query of the policy service. Synchronous: call it from a thread.

A write takes the next version first, which also makes the writers of all replicas queue up: each sees what
the one before it left, and SQLite never has to turn a reader into a writer.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

from sqlalchemy import Engine, update
from sqlmodel import Session, col, select

from libs.common.control.entries import DEFAULT_GROUP, AnyEntry, Member, ServerAccess
from services.policy.definition import Definition, InitialAccess, is_loopback
from services.policy.domain import (
    ANYTHING,
    Change,
    Group,
    Organization,
    Precondition,
    Server,
    UnknownGroup,
    UnknownServer,
)
from services.policy.features import Features, Kind
from services.policy.tables import (
    AccessRow,
    Counter,
    GroupRow,
    MemberRow,
    OrganizationRow,
    ServerRow,
    access_of,
    define,
    grant,
    member_of,
    offer,
    organization_of,
    server_of,
    server_row,
)

KINDS = ("org", "server", "group", "member")
DEMO = "demo"
_ORGANIZATION_ID = 1


class PolicyStore:
    """The tables of one policy database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @contextmanager
    def _read(self) -> Iterator[Session]:
        with Session(self._engine) as session:
            yield session

    @contextmanager
    def _write(self) -> Iterator[tuple[Session, int]]:
        """One transaction and the version for the rows that it changes."""
        with Session(self._engine) as session, session.begin():
            taken = update(Counter).values(value=Counter.value + 1).returning(col(Counter.value))
            yield session, session.execute(taken).scalar_one()

    # -- the first start --------------------------------------------------------------------------

    def initialize(self, demo_url: str | None) -> bool:
        """Create what always exists, and with it, once, the demo server; later keep the demo's port right.

        Returns whether the demo server should be asked what it offers: it is new, has moved, or never told.
        """
        with self._write() as (session, version):
            if session.get(GroupRow, DEFAULT_GROUP) is None:
                session.add(OrganizationRow(id=_ORGANIZATION_ID, enabled=True, reason="", version=version))
                session.add(GroupRow(id=DEFAULT_GROUP, name="Everyone", version=version))
                session.flush()
                if demo_url:
                    session.add(server_row(DEMO, Definition(name="Demo", url=demo_url), version))
                    _set_access(session, DEFAULT_GROUP, DEMO, ServerAccess())
            elif demo_url:
                demo = session.get(ServerRow, DEMO)
                if demo and demo.url != demo_url and is_loopback(demo.url):
                    demo.url, demo.version = demo_url, version
                    return True
            demo = session.get(ServerRow, DEMO) if demo_url else None
            return demo is not None and demo.url == demo_url and not demo.tools

    # -- servers ----------------------------------------------------------------------------------

    def servers(self, after: str = "", limit: int = 100) -> list[Server]:
        """Servers in the order of their slugs, from the one following `after`."""
        query = select(ServerRow).where(ServerRow.slug > after).order_by(col(ServerRow.slug)).limit(limit)
        with self._read() as session:
            return [server_of(row) for row in session.exec(query)]

    def server(self, slug: str) -> Server:
        """Raises `UnknownServer`."""
        with self._read() as session:
            return server_of(_server_row(session, slug))

    def put_server(
        self,
        slug: str,
        definition: Definition,
        default_access: InitialAccess = "none",
        precondition: Precondition = ANYTHING,
    ) -> Change[Server]:
        """Create the server or change its definition. `default_access` counts only when it is created."""
        with self._write() as (session, version):
            row = session.get(ServerRow, slug)
            precondition.check(row.version if row else None)
            keys = [f"server.{slug}"]
            if default_access != "none":  # also when repeated: the first request may not have got far
                keys.append(f"group.{DEFAULT_GROUP}")
            if row is None:
                row = self._create_server(session, version, slug, definition, default_access)
                return Change(None, server_of(row), tuple(keys))
            before = server_of(row)
            if before.definition != definition:
                define(row, definition)
                row.version = version
            return Change(before, server_of(row), tuple(keys))

    @staticmethod
    def _create_server(
        session: Session, version: int, slug: str, definition: Definition, default_access: InitialAccess
    ) -> ServerRow:
        row = server_row(slug, definition, version)
        session.add(row)
        session.flush()
        if default_access != "none":
            _set_access(session, DEFAULT_GROUP, slug, ServerAccess(default=default_access))
            _group_row(session, DEFAULT_GROUP).version = version
        return row

    def switch_server(
        self, slug: str, enabled: bool, reason: str, precondition: Precondition = ANYTHING
    ) -> Change[Server]:
        """Raises `UnknownServer`."""
        with self._write() as (session, version):
            row = _server_row(session, slug)
            precondition.check(row.version)
            before = server_of(row)
            if (row.enabled, row.reason) != (enabled, reason):
                row.enabled, row.reason, row.version = enabled, reason, version
            return Change(before, server_of(row), (f"server.{slug}",))

    def set_features(
        self, slug: str, features: Features, precondition: Precondition = ANYTHING
    ) -> Change[Server]:
        """Say what the server offers. Raises `UnknownServer`."""
        return self._offer(slug, lambda _: features, precondition)

    def name_features(
        self, slug: str, names: Mapping[Kind, Collection[str]], precondition: Precondition = ANYTHING
    ) -> Change[Server]:
        """Say what it offers of some kinds. Raises `UnknownServer`, and `BadRequest` for bad names."""
        return self._offer(slug, lambda present: present.renamed(names), precondition)

    def _offer(
        self, slug: str, change: Callable[[Features], Features], precondition: Precondition
    ) -> Change[Server]:
        with self._write() as (session, version):
            row = _server_row(session, slug)
            precondition.check(row.version)
            before = server_of(row)
            features = change(before.features)
            if before.features != features:
                offer(row, features)
                row.version = version
            return Change(before, server_of(row), (f"server.{slug}",))

    def delete_server(self, slug: str, precondition: Precondition = ANYTHING) -> Change[Server]:
        """Delete the server and every group's access to it. A server that is not there is no error."""
        with self._write() as (session, version):
            row = session.get(ServerRow, slug)
            precondition.check(row.version if row else None)
            keys = [f"server.{slug}"]
            if row is None:
                return Change(None, None, tuple(keys))
            before = server_of(row)
            for access in session.exec(select(AccessRow).where(AccessRow.server_slug == slug)).all():
                _group_row(session, access.group_id).version = version
                keys.append(f"group.{access.group_id}")
                session.delete(access)
            session.flush()
            session.delete(row)
            return Change(before, None, tuple(keys))

    # -- groups -----------------------------------------------------------------------------------

    def groups(self, after: str = "", limit: int = 100) -> list[Group]:
        """Groups in the order of their ids, from the one following `after`."""
        query = select(GroupRow).where(GroupRow.id > after).order_by(col(GroupRow.id)).limit(limit)
        with self._read() as session:
            return [_group(session, row) for row in session.exec(query).all()]

    def group(self, group: str) -> Group:
        """Raises `UnknownGroup`."""
        with self._read() as session:
            return _group(session, _group_row(session, group))

    def rename_group(self, group: str, name: str, precondition: Precondition = ANYTHING) -> Change[Group]:
        """Raises `UnknownGroup`."""
        with self._write() as (session, version):
            row = _group_row(session, group)
            precondition.check(row.version)
            before = _group(session, row)
            if row.name != name:
                row.name, row.version = name, version
            return Change(before, _group(session, row), (f"group.{group}",))

    def set_access(
        self, group: str, slug: str, access: ServerAccess | None, precondition: Precondition = ANYTHING
    ) -> Change[Group]:
        """What the group may use of the server; `None`: nothing. Raises `UnknownGroup`, `UnknownServer`."""
        with self._write() as (session, version):
            row = _group_row(session, group)
            precondition.check(row.version)
            _server_row(session, slug)
            before = _group(session, row)
            if before.servers.get(slug) != access:
                _set_access(session, group, slug, access)
                row.version = version
                session.flush()
            return Change(before, _group(session, row), (f"group.{group}",))

    def assign(self, user: str, groups: Sequence[str]) -> Change[Member]:
        """Put `user` into the first of `groups` that there is, by id or else by name, or into the default."""
        with self._write() as (session, version):
            rows = session.exec(select(GroupRow).order_by(col(GroupRow.id))).all()
            by_name = {row.name: row.id for row in reversed(rows)} | {row.id: row.id for row in rows}
            group = next((by_name[name] for name in groups if name in by_name), DEFAULT_GROUP)
            row = session.get(MemberRow, user)
            before = member_of(row) if row else None
            if before is None or before.group != group:
                row = session.merge(MemberRow(user_id=user, group_id=group, version=version))
            assert row
            return Change(before, member_of(row), (f"member.{user}",))

    # -- the organization -------------------------------------------------------------------------

    def organization(self) -> Organization:
        with self._read() as session:
            return organization_of(session.get_one(OrganizationRow, _ORGANIZATION_ID))

    def switch_organization(
        self, enabled: bool, reason: str, precondition: Precondition = ANYTHING
    ) -> Change[Organization]:
        with self._write() as (session, version):
            row = session.get_one(OrganizationRow, _ORGANIZATION_ID)
            precondition.check(row.version)
            before = organization_of(row)
            if (row.enabled, row.reason) != (enabled, reason):
                row.enabled, row.reason, row.version = enabled, reason, version
            return Change(before, organization_of(row), ("org",))

    # -- the control log --------------------------------------------------------------------------

    def entries(self, keys: Collection[str] | None) -> dict[str, AnyEntry]:
        """The entries that `keys` should have in the control log; `None` asks for all of them."""
        with self._read() as session:
            if keys is None:
                return _all_entries(session)
            found = {key: _entry(session, key) for key in keys}
            return {key: entry for key, entry in found.items() if entry is not None}


def _all_entries(session: Session) -> dict[str, AnyEntry]:
    found: dict[str, AnyEntry] = {}
    found["org"] = organization_of(session.get_one(OrganizationRow, _ORGANIZATION_ID)).entry()
    for server in session.exec(select(ServerRow)):
        found[f"server.{server.slug}"] = server_of(server).entry()
    for group in session.exec(select(GroupRow)).all():
        found[f"group.{group.id}"] = _group(session, group).entry()
    for member in session.exec(select(MemberRow)):
        found[f"member.{member.user_id}"] = member_of(member)
    return found


def _entry(session: Session, key: str) -> AnyEntry | None:
    kind, _, name = key.partition(".")
    if kind == "org":
        return organization_of(session.get_one(OrganizationRow, _ORGANIZATION_ID)).entry()
    if kind == "server" and (server := session.get(ServerRow, name)):
        return server_of(server).entry()
    if kind == "group" and (group := session.get(GroupRow, name)):
        return _group(session, group).entry()
    if kind == "member" and (member := session.get(MemberRow, name)):
        return member_of(member)
    return None


def _server_row(session: Session, slug: str) -> ServerRow:
    row = session.get(ServerRow, slug)
    if row is None:
        raise UnknownServer(f"No server is called {slug[:80]!r}.")
    return row


def _group_row(session: Session, group: str) -> GroupRow:
    row = session.get(GroupRow, group)
    if row is None:
        raise UnknownGroup(f"No group is called {group[:80]!r}.")
    return row


def _set_access(session: Session, group: str, slug: str, access: ServerAccess | None) -> None:
    row = session.get(AccessRow, (group, slug))
    if access is None:
        if row:
            session.delete(row)
        return
    row = row or AccessRow(group_id=group, server_slug=slug)  # type: ignore[call-arg]
    grant(row, access)
    session.add(row)


def _group(session: Session, row: GroupRow) -> Group:
    query = select(AccessRow).where(AccessRow.group_id == row.id).order_by(col(AccessRow.server_slug))
    servers = {access.server_slug: access_of(access) for access in session.exec(query)}
    return Group(id=row.id, name=row.name, servers=servers, version=row.version)
