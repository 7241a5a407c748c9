"""Reading and turning switches inside a transaction."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from sqlmodel import Session, and_, col, delete, or_, select

from libs.common.clock import iso, now
from libs.common.control.entries import Off
from libs.common.errors import BadRequest
from services.policy.switches import TOOLS_OFF_PER_SERVER, Level, server_of_tool
from services.policy.tables import SwitchRow


def off(session: Session, level: Level, subject: str) -> Off | None:
    """Why that is off; none when it is on."""
    return off_of(session.get(SwitchRow, (level, subject)))


def all_off(session: Session, level: Level) -> dict[str, Off]:
    """All that is off at that level, by subject."""
    return {row.subject: _off(row) for row in session.exec(select(SwitchRow).where(SwitchRow.level == level))}


def tools_off(session: Session, slug: str) -> Mapping[str, Off]:
    """Those of the server's tools that are off, by name."""
    query = select(SwitchRow).where(SwitchRow.level == "tool", col(SwitchRow.subject).startswith(f"{slug}/"))
    return _by_server(session.exec(query.order_by(col(SwitchRow.subject))))[slug]


def all_tools_off(session: Session) -> Mapping[str, Mapping[str, Off]]:
    """All tools that are off, by slug of the server and name; of servers without one an empty mapping."""
    query = select(SwitchRow).where(SwitchRow.level == "tool").order_by(col(SwitchRow.subject))
    return _by_server(session.exec(query))


def turn(  # noqa: PLR0917  # all that a row says
    session: Session, version: int, level: Level, subject: str, wanted: Off | None, by: str
) -> bool:
    """Turn the switch `wanted` (off), or on. Returns whether anything is different now."""
    row = session.get(SwitchRow, (level, subject))
    if off_of(row) == wanted:
        return False
    if wanted is None:
        session.delete(row)
    else:
        if row is None:
            _check_number(session, level, subject)
            row = SwitchRow(level=level, subject=subject, since=iso(now()))  # type: ignore[call-arg]
        row.reason, row.until, row.changed_by, row.version = wanted.reason, wanted.until, by, version
        session.add(row)
    session.flush()
    return True


def forget(session: Session, level: Level, subject: str) -> None:
    """Its subject is gone, and the switch with it; a server's tools too."""
    gone = [and_(col(SwitchRow.level) == level, col(SwitchRow.subject) == subject)]
    if level == "server":
        gone.append(and_(col(SwitchRow.level) == "tool", col(SwitchRow.subject).startswith(f"{subject}/")))
    session.execute(delete(SwitchRow).where(or_(*gone)))


def _check_number(session: Session, level: Level, subject: str) -> None:
    if level != "tool":
        return
    slug = server_of_tool(subject)
    if len(tools_off(session, slug)) >= TOOLS_OFF_PER_SERVER:
        raise BadRequest(
            f"{slug} has {TOOLS_OFF_PER_SERVER} tools that are switched off: switch the server off, or deny "
            "its tools to groups"
        )


def off_of(row: SwitchRow | None) -> Off | None:
    return _off(row) if row else None


def _off(row: SwitchRow) -> Off:
    return Off(reason=row.reason, until=row.until)


def _by_server(rows: Iterable[SwitchRow]) -> Mapping[str, Mapping[str, Off]]:
    found: defaultdict[str, dict[str, Off]] = defaultdict(dict)
    for row in rows:
        slug, _, tool = row.subject.partition("/")
        found[slug][tool] = _off(row)
    return found
