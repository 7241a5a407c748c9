"""Permission groups and what they may use."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from sqlmodel import Session, col, delete, select

from libs.common.control.entries import DEFAULT_GROUP, ServerAccess
from services.policy.domain import (
    ANYTHING,
    Change,
    DefaultGroupStays,
    Disbanded,
    Group,
    GroupExists,
    Precondition,
)
from services.policy.store import switch_rows
from services.policy.store.database import Database
from services.policy.store.rows import group_row, server_row_of
from services.policy.store.size import fitting
from services.policy.tables import AccessRow, GroupRow, MemberRow, access_of, grant


class Groups:
    """Permission groups, by id."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self, after: str = "", limit: int = 100) -> list[Group]:
        """Groups in the order of their ids, from the one following `after`."""
        query = select(GroupRow).where(GroupRow.id > after).order_by(col(GroupRow.id)).limit(limit)
        with self._database.read() as session:
            return list(load_all(session, session.exec(query).all()))

    def get(self, group: str) -> Group:
        """Raises `UnknownGroup`."""
        with self._database.read() as session:
            return load(session, group_row(session, group))

    def put(self, group: str, name: str, precondition: Precondition = ANYTHING) -> Change[Group]:
        """Create the group, which may use nothing then, or rename it."""
        with self._database.write() as (session, version):
            row = session.get(GroupRow, group)
            precondition.check(row.version if row else None, GroupExists)
            before = load(session, row) if row else None
            if row is None:
                row = GroupRow(id=group, name=name, version=version)
                session.add(row)
            elif row.name != name:
                row.name, row.version = name, version
            return Change(before, load(session, row), (f"group.{group}",))

    def delete(self, group: str, precondition: Precondition = ANYTHING) -> Change[Disbanded]:
        """Delete the group; its members are in the default group then. That it is not there is no error.

        Raises `DefaultGroupStays`.
        """
        if group == DEFAULT_GROUP:
            raise DefaultGroupStays("Everybody who is in no other group is in it.")
        with self._database.write() as (session, version):
            row = session.get(GroupRow, group)
            precondition.check(row.version if row else None)
            key = f"group.{group}"
            if row is None:
                return Change(None, None, (key,))
            members = session.exec(select(MemberRow).where(MemberRow.group_id == group)).all()
            users = tuple(sorted(member.user_id for member in members))
            before = Disbanded(group=load(session, row), members=users)
            for member in members:
                member.group_id, member.version = DEFAULT_GROUP, version
            session.execute(delete(AccessRow).where(col(AccessRow.group_id) == group))
            switch_rows.forget(session, "group", group)
            session.flush()
            session.delete(row)
            # The members first: one whose group is not there may use nothing.
            return Change(before, None, (*(f"member.{user}" for user in users), key), key)

    def set_access(
        self, group: str, slug: str, access: ServerAccess | None, precondition: Precondition = ANYTHING
    ) -> Change[Group]:
        """What the group may use of the server; `None`: nothing. Raises `UnknownGroup`, `UnknownServer`."""
        with self._database.write() as (session, version):
            row = group_row(session, group)
            precondition.check(row.version)
            server_row_of(session, slug)
            before = load(session, row)
            if before.servers.get(slug) != access:
                set_access(session, group, slug, access)
                row.version = version
                session.flush()
            return Change(before, fitting(load(session, row)), (f"group.{group}",))


def load(session: Session, row: GroupRow) -> Group:
    return next(load_all(session, [row]))


def load_all(session: Session, rows: Sequence[GroupRow]) -> Iterator[Group]:
    query = select(AccessRow).where(col(AccessRow.group_id).in_([row.id for row in rows]))
    servers: defaultdict[str, dict[str, ServerAccess]] = defaultdict(dict)
    for access in session.exec(query.order_by(col(AccessRow.server_slug))):
        servers[access.group_id][access.server_slug] = access_of(access)
    off = switch_rows.all_off(session, "group")
    return (
        Group(id=row.id, name=row.name, servers=servers[row.id], off=off.get(row.id), version=row.version)
        for row in rows
    )


def set_access(session: Session, group: str, slug: str, access: ServerAccess | None) -> None:
    row = session.get(AccessRow, (group, slug))
    if access is None:
        if row:
            session.delete(row)
        return
    row = row or AccessRow(group_id=group, server_slug=slug)  # type: ignore[call-arg]
    grant(row, access)
    session.add(row)
