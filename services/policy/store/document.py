"""The state that access as code is about, read and written as a whole."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
from sqlmodel import Session, col, delete, select

from libs.common.control.entries import DEFAULT_GROUP, Quota, Rule
from services.policy.document.state import Difference, GroupState, State, differences
from services.policy.domain import Change, Changed
from services.policy.store import groups, members, switch_rows
from services.policy.store.database import Database
from services.policy.store.rules import Quotas, Rules
from services.policy.store.size import fitting
from services.policy.tables import AccessRow, GroupRow, MemberRow, QuotaRow, RuleRow


@dataclass(frozen=True, slots=True)
class Part:
    """One thing of a document, as the record of a change tells of it."""

    told: dict[str, object]

    def record(self) -> dict[str, object]:
        return self.told


class Documents:
    """All groups, memberships, rules and quotas together."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def state(self) -> State:
        with self._database.read() as session:
            return _state(session)

    def apply(self, wish: Callable[[State], State], etag: str | None = None) -> Sequence[Change[Part]]:
        """Make the state what `wish` makes of the present one, in one transaction. `etag` is that of the
        state to which this is the answer. Raises `Changed`, and what `wish` raises."""
        with self._database.write() as (session, version):
            present = _state(session)
            if etag is not None and etag != present.etag:
                raise Changed("Look at the plan again: it was made of what was there before.")
            wanted = wish(present)
            changes = []
            for each in differences(present, wanted):
                _carry_out(session, version, each, wanted)
                changes.append(_change(each))
            return changes


def _state(session: Session) -> State:
    rows = session.exec(select(GroupRow)).all()
    return State(
        groups={group.id: GroupState(group.name, group.servers) for group in groups.load_all(session, rows)},
        members={
            row.user_id: row.group_id
            for row in session.exec(select(MemberRow))
            if row.group_id != DEFAULT_GROUP
        },
        rules={rule.id: rule for rule in Rules.load_all(session)},
        quotas={quota.id: quota for quota in Quotas.load_all(session)},
    )


def _change(each: Difference) -> Change[Part]:
    before, after = (
        None if told is None else Part(told if isinstance(told, dict) else {"group": told})
        for told in (each.before, each.after)
    )
    return Change(before, after, (each.key,))


def _carry_out(session: Session, version: int, each: Difference, wanted: State) -> None:
    kind, _, name = each.key.partition(".")
    match kind:
        case "group":
            _put_group(session, version, name, wanted.groups.get(name))
        case "member":
            _put_member(session, version, name, wanted.group_of(name))
        case "rule":
            _put(session, RuleRow, name, wanted.rules.get(name), version)
        case "quota":
            _put(session, QuotaRow, name, wanted.quotas.get(name), version)
    session.flush()


def _put_group(session: Session, version: int, id: str, wanted: GroupState | None) -> None:
    row = session.get(GroupRow, id)
    if wanted is None:
        session.execute(delete(AccessRow).where(col(AccessRow.group_id) == id))
        switch_rows.forget(session, "group", id)
        session.flush()
        session.delete(row)
        return
    row = row or GroupRow(id=id, name=wanted.name, version=version)
    row.name, row.version = wanted.name, version
    session.add(row)
    session.flush()
    present = groups.load(session, row).servers
    for slug in present.keys() | wanted.servers.keys():
        if present.get(slug) != wanted.servers.get(slug):
            groups.set_access(session, id, slug, wanted.servers.get(slug))
    session.flush()
    fitting(groups.load(session, row))


def _put_member(session: Session, version: int, user: str, group: str) -> None:
    members.move(session, version, user, group)


def _put(
    session: Session,
    table: type[RuleRow | QuotaRow],
    id: str,
    wanted: Rule | Quota | None,
    version: int,
) -> None:
    if wanted is None:
        session.delete(session.get(table, id))
    else:
        session.merge(table(**msgspec.structs.asdict(msgspec.structs.replace(wanted, version=version))))
