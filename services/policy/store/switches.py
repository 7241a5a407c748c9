"""Switches of all levels. A row is something that is off."""

from collections.abc import Sequence
from datetime import datetime

from sqlmodel import Session, and_, col, or_, select
from sqlmodel.sql.expression import SelectOfScalar

from libs.common.clock import iso
from libs.common.control.entries import Off
from services.policy.domain import ANYTHING, Change, Precondition
from services.policy.store import organization, servers
from services.policy.store.database import Database
from services.policy.store.rows import group_row, server_row_of
from services.policy.store.size import fitting
from services.policy.store.switch_rows import turn
from services.policy.switches import Level, NotOff, OffAlready, Switch, entry_key, server_of_tool
from services.policy.tables import GroupRow, MemberRow, OrganizationRow, ServerRow, SwitchRow, switch_of


class Switches:
    """What is off, by level and subject; these must be checked (`check_subject`)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self, after: tuple[str, str] = ("", ""), limit: int = 100) -> list[Switch]:
        """In the order of level and subject, from the one following `after`."""
        level, subject = after
        following = or_(SwitchRow.level > level, and_(SwitchRow.level == level, SwitchRow.subject > subject))
        query = select(SwitchRow).where(following).order_by(col(SwitchRow.level), col(SwitchRow.subject))
        with self._database.read() as session:
            return [switch_of(row) for row in session.exec(query.limit(limit))]

    def get(self, level: Level, subject: str) -> Switch:
        """Raises `NotOff`."""
        with self._database.read() as session:
            found = _load(session, level, subject)
        if found is None:
            raise NotOff
        return found

    def turn_off(
        self, level: Level, subject: str, off: Off, by: str, precondition: Precondition = ANYTHING
    ) -> Change[Switch]:
        """Raises `UnknownServer`, `UnknownGroup`. Users and clients are not known here."""
        with self._database.write() as (session, version):
            before = _load(session, level, subject)
            precondition.check(before.version if before else None, OffAlready)
            target = _target(session, level, subject)
            if turn(session, version, level, subject, off, by) and target:
                target.version = version
            if isinstance(target, ServerRow):
                fitting(servers.load(session, target))
            return Change(before, _load(session, level, subject), (entry_key(level, subject),))

    def turn_on(self, level: Level, subject: str, precondition: Precondition = ANYTHING) -> Change[Switch]:
        """That it is on already is no error."""
        with self._database.write() as (session, version):
            before = _load(session, level, subject)
            precondition.check(before.version if before else None)
            if before:
                turn(session, version, level, subject, None, "")
                target = _target(session, level, subject)
                if target:
                    target.version = version
            return Change(before, None, (entry_key(level, subject),))

    def due(self, moment: datetime, limit: int = 100) -> Sequence[Switch]:
        """Those whose end has come, the earliest first."""
        query = _ending().where(SwitchRow.until <= iso(moment)).limit(limit)
        with self._database.read() as session:
            return [switch_of(row) for row in session.exec(query)]

    def next_end(self) -> datetime | None:
        """When the next one ends."""
        with self._database.read() as session:
            row = session.exec(_ending().limit(1)).first()
        return datetime.fromisoformat(row.until) if row else None


def _ending() -> SelectOfScalar[SwitchRow]:
    return select(SwitchRow).where(SwitchRow.until != "").order_by(col(SwitchRow.until))


def _load(session: Session, level: Level, subject: str) -> Switch | None:
    row = session.get(SwitchRow, (level, subject))
    return switch_of(row) if row else None


def _target(
    session: Session, level: Level, subject: str
) -> OrganizationRow | ServerRow | GroupRow | MemberRow | None:
    """The row whose entry in the control log says that it is off, if there is one beside the switch."""
    match level:
        case "organization":
            return organization.row_of(session)
        case "server":
            return server_row_of(session, subject)
        case "tool":
            return server_row_of(session, server_of_tool(subject))
        case "group":
            return group_row(session, subject)
        case "user":
            return session.get(MemberRow, subject)
        case "client":
            return None
