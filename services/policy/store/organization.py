"""The organization."""

from sqlmodel import Session

from libs.common.control.entries import Off
from services.policy.domain import ANYTHING, Change, Organization, Precondition
from services.policy.store import switch_rows
from services.policy.store.database import Database
from services.policy.tables import OrganizationRow

ONLY = 1  # the id of its row


class Organizations:
    """There is one."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def get(self) -> Organization:
        with self._database.read() as session:
            return load(session)

    def switch(self, off: Off | None, by: str, precondition: Precondition = ANYTHING) -> Change[Organization]:
        """Turn it `off`, or on."""
        with self._database.write() as (session, version):
            row = row_of(session)
            precondition.check(row.version)
            before = load(session)
            if switch_rows.turn(session, version, "organization", "", off, by):
                row.version = version
            return Change(before, load(session), ("org",))


def row_of(session: Session) -> OrganizationRow:
    return session.get_one(OrganizationRow, ONLY)


def load(session: Session) -> Organization:
    off = switch_rows.off(session, "organization", "")
    return Organization(off=off, version=row_of(session).version)
