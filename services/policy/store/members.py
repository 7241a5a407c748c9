"""Who is in which group."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from heapq import nsmallest
from operator import attrgetter

from sqlmodel import Session, col, func, select

from libs.common.control.entries import DEFAULT_GROUP
from services.policy.domain import ANYTHING, Change, Member, Precondition
from services.policy.store import switch_rows
from services.policy.store.database import Database
from services.policy.store.rows import group_row
from services.policy.store.switch_rows import off_of
from services.policy.tables import GroupRow, MemberRow, SwitchRow


class Members:
    """Users and their groups. Without a row it is the default group. Which users there are, is auth's."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self, user: str) -> Member:
        with self._database.read() as session:
            return load(session, user)

    def of_group(
        self, group: str, everybody: Iterable[str], after: str = "", limit: int = 100
    ) -> list[Member]:
        """Those of `everybody` who are in the group, in the order of their ids, from the one following
        `after`. Raises `UnknownGroup`."""
        with self._database.read() as session:
            group_row(session, group)
            kept = {member.user: member for member in load_all(session)}
        members = (kept.get(user) or _member(user) for user in everybody if user > after)
        return nsmallest(limit, (one for one in members if one.group == group), key=attrgetter("user"))

    def some(self, users: Collection[str]) -> dict[str, Member]:
        """These, by user."""
        with self._database.read() as session:
            return {user: load(session, user) for user in users}

    def users_in(self, group: str, everybody: Iterable[str]) -> set[str]:
        """Those of `everybody` who are in the group. Cheaper than `of_group` where they are very many."""
        is_default = group == DEFAULT_GROUP
        of = col(MemberRow.group_id)
        with self._database.read() as session:
            query = select(MemberRow.user_id).where(of != group if is_default else of == group)
            found = set(session.exec(query))
        return {user for user in everybody if (user in found) is not is_default}

    def counts(self, everybody: int) -> dict[str, int]:
        """How many members each group has that has any, where there are so many users."""
        query = select(MemberRow.group_id, func.count()).where(MemberRow.group_id != DEFAULT_GROUP)
        with self._database.read() as session:
            found = dict(session.exec(query.group_by(col(MemberRow.group_id))).all())
        return found | {DEFAULT_GROUP: max(0, everybody - sum(found.values()))}

    def put(self, user: str, group: str, precondition: Precondition = ANYTHING) -> Change[Member]:
        """Move `user` into the group. Raises `UnknownGroup`."""
        with self._database.write() as (session, version):
            precondition.check(load(session, user).version)
            group_row(session, group)
            return move(session, version, user, group)

    def assign(self, user: str, groups: Sequence[str]) -> Change[Member]:
        """Put `user` into the first of `groups` that there is, by id or else by name, or into the default."""
        with self._database.write() as (session, version):
            rows = session.exec(select(GroupRow).order_by(col(GroupRow.id))).all()
            by_name = {row.name: row.id for row in reversed(rows)} | {row.id: row.id for row in rows}
            group = next((by_name[name] for name in groups if name in by_name), DEFAULT_GROUP)
            return move(session, version, user, group)

    def kept(self) -> set[str]:
        """The users of whom something is kept: a group, or a switch."""
        with self._database.read() as session:
            rows = session.exec(select(MemberRow.user_id)).all()
            switches = session.exec(select(SwitchRow.subject).where(SwitchRow.level == "user")).all()
            return {*rows, *switches}

    def forget(self, user: str) -> Change[Member]:
        """Forget the group and the switch of one whom auth has removed."""
        with self._database.write() as (session, _):
            before = load(session, user)
            row = session.get(MemberRow, user)
            if row:
                session.delete(row)
            switch_rows.forget(session, "user", user)
            session.flush()
            return _change(before, load(session, user))


def load(session: Session, user: str) -> Member:
    return _member(user, session.get(MemberRow, user), session.get(SwitchRow, ("user", user)))


def load_all(session: Session) -> Iterator[Member]:
    """All of whom something is kept. They can be very many, so of their rows only what is needed is read."""
    query = select(MemberRow.user_id, MemberRow.group_id, MemberRow.version)
    switches = select(SwitchRow).where(SwitchRow.level == "user")
    off = {switch.subject: switch for switch in session.exec(switches)}
    for user, group, version in session.exec(query):
        yield Member(user=user, group=group, off=off_of(off.pop(user, None)), version=version)
    for user, switch in off.items():
        yield _member(user, switch=switch)


def _member(user: str, row: MemberRow | None = None, switch: SwitchRow | None = None) -> Member:
    group, version = (row.group_id, row.version) if row else (DEFAULT_GROUP, switch.version if switch else 0)
    return Member(user=user, group=group, off=off_of(switch), version=version)


def move(session: Session, version: int, user: str, group: str) -> Change[Member]:
    before = load(session, user)
    if before.group != group:
        row = session.get(MemberRow, user) or MemberRow(user_id=user, group_id=group, version=version)
        row.group_id, row.version = group, version
        session.add(row)
        session.flush()
    return _change(before, load(session, user))


def _change(before: Member, after: Member) -> Change[Member]:
    return Change(before, after, (f"member.{before.user}",))
