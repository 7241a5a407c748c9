"""What is switched off."""

from sqlmodel import Field

from libs.common.control.entries import Off
from services.policy.switches import Level, Switch
from services.policy.tables.row import Row


class SwitchRow(Row, table=True):
    """Something that is off. Times are ISO 8601 in UTC; `until` is empty when nobody set an end."""

    __tablename__ = "switches"
    level: str = Field(primary_key=True)
    subject: str = Field(primary_key=True)
    reason: str
    until: str
    since: str
    changed_by: str
    version: int


def switch_of(row: SwitchRow) -> Switch:
    level: Level = row.level  # type: ignore[assignment]
    return Switch(
        level=level,
        subject=row.subject,
        off=Off(reason=row.reason, until=row.until),
        since=row.since,
        changed_by=row.changed_by,
        version=row.version,
    )
