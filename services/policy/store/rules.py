"""Rules and quotas: rows that the control log says as they are."""

from collections.abc import Iterator
from typing import Generic, TypeVar

import msgspec
from sqlmodel import Session, col, func, select

from libs.common.control.entries import Quota, Rule
from libs.common.errors import BadRequest, Conflict, NotFound
from services.policy.domain import ANYTHING, Change, Precondition
from services.policy.rules import (
    MOST,
    Kept,
    QuotaExists,
    RuleExists,
    UnknownQuota,
    UnknownRule,
    group_of,
    servers_of,
)
from services.policy.store.database import Database
from services.policy.store.rows import group_row, server_row_of
from services.policy.tables import QuotaRow, RuleRow

R = TypeVar("R", RuleRow, QuotaRow)
E = TypeVar("E", Rule, Quota)


class _Definitions(Generic[R, E]):
    """Rules, or quotas, by id."""

    row: type[R]
    entry: type[E]
    kind: str
    unknown: type[NotFound]
    exists: type[Conflict]

    def __init__(self, database: Database) -> None:
        self._database = database

    def list(self, after: str = "", limit: int = 100) -> list[E]:
        """In the order of their ids, from the one following `after`."""
        query = select(self.row).where(self.row.id > after).order_by(col(self.row.id)).limit(limit)
        with self._database.read() as session:
            return [self._entry(row) for row in session.exec(query)]

    def get(self, id: str) -> E:
        """Raises `UnknownRule` or `UnknownQuota`."""
        with self._database.read() as session:
            found = self.load(session, id)
        if found is None:
            raise self.unknown(f"No {self.kind} has the id {id[:80]!r}.")
        return found

    def put(self, wanted: E, precondition: Precondition = ANYTHING) -> Change[Kept[E]]:
        """Create it, or make it what is `wanted`, which must be checked; its version is of no account.

        Raises `UnknownServer`, `UnknownGroup` for what it did not name before.
        """
        with self._database.write() as (session, version):
            before = self.load(session, wanted.id)
            precondition.check(before.version if before else None, self.exists)
            after = msgspec.structs.replace(wanted, version=before.version if before else version)
            if after != before:
                _check_named(session, after, before)
                if before is None:
                    self._check_room(session)
                after = msgspec.structs.replace(after, version=version)
                session.merge(self.row(**msgspec.structs.asdict(after)))
            return Change(Kept(before) if before else None, Kept(after), self._keys(wanted.id))

    def delete(self, id: str, precondition: Precondition = ANYTHING) -> Change[Kept[E]]:
        """That it is not there is no error."""
        with self._database.write() as (session, _):
            row = session.get(self.row, id)
            precondition.check(row.version if row else None)
            before = Kept(self._entry(row)) if row else None
            if row:
                session.delete(row)
            return Change(before, None, self._keys(id))

    @classmethod
    def load(cls, session: Session, id: str) -> E | None:
        row = session.get(cls.row, id)
        return cls._entry(row) if row else None

    @classmethod
    def load_all(cls, session: Session) -> Iterator[E]:
        return (cls._entry(row) for row in session.exec(select(cls.row)))

    @classmethod
    def _entry(cls, row: R) -> E:
        return cls.entry(**{name: getattr(row, name) for name in cls.entry.__struct_fields__})

    def _keys(self, id: str) -> tuple[str, ...]:
        return (f"{self.kind}.{id}",)

    def _check_room(self, session: Session) -> None:
        if session.exec(select(func.count()).select_from(self.row)).one() >= MOST:
            raise BadRequest(f"there are {MOST} {self.kind}s already, which is the most")


class Rules(_Definitions[RuleRow, Rule]):
    """As libs.common.decision.rules reads them."""

    row, entry, kind, unknown, exists = RuleRow, Rule, "rule", UnknownRule, RuleExists


class Quotas(_Definitions[QuotaRow, Quota]):
    """As gateways count by them."""

    row, entry, kind, unknown, exists = QuotaRow, Quota, "quota", UnknownQuota, QuotaExists


def _check_named(session: Session, after: Rule | Quota, before: Rule | Quota | None) -> None:
    """What is named has to be there: a misspelt name would silently do nothing. What was named already may
    have gone since."""
    for slug in sorted(servers_of(after) - (servers_of(before) if before else set())):
        server_row_of(session, slug)
    group = group_of(after)
    if group and not (before and group_of(before) == group):
        group_row(session, group)
