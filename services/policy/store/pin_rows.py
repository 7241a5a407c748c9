"""Reading and writing pins inside a transaction."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from sqlmodel import Session, and_, col, delete, or_, select

from services.policy.pins import Pin
from services.policy.tables import PinRow

# Not the definitions: they are long, and only needed by those who look at one.
_COLUMNS = (
    col(PinRow.server_slug),
    col(PinRow.tool),
    col(PinRow.digest),
    col(PinRow.offered),
    col(PinRow.since),
    col(PinRow.rejected),
    col(PinRow.version),
)
_ORDER = (col(PinRow.server_slug), col(PinRow.tool))


def pins(session: Session, slug: str) -> Mapping[str, Pin]:
    """Those of one server, by tool."""
    query = select(*_COLUMNS).where(PinRow.server_slug == slug)  # type: ignore[call-overload]
    return _by_server(session.execute(query.order_by(*_ORDER)))[slug]


def all_pins(session: Session) -> Mapping[str, Mapping[str, Pin]]:
    """All there are, by server and tool; of servers without one an empty mapping."""
    return _by_server(session.execute(select(*_COLUMNS).order_by(*_ORDER)))  # type: ignore[call-overload]


def waiting(session: Session, after: tuple[str, str], limit: int) -> list[tuple[str, str, Pin]]:
    """Server, tool and pin of those that wait and were not rejected, from the one following `after`."""
    slug, tool = after
    same = and_(col(PinRow.server_slug) == slug, col(PinRow.tool) > tool)
    beyond = or_(col(PinRow.server_slug) > slug, same)
    query = select(*_COLUMNS).where(beyond, PinRow.offered != "", col(PinRow.rejected).is_(False))  # type: ignore[call-overload]
    found = session.execute(query.order_by(*_ORDER).limit(limit))
    return [(slug, tool, Pin(*fields)) for slug, tool, *fields in found]


def save(session: Session, slug: str, changed: Mapping[str, Pin], texts: Mapping[str, str]) -> None:
    """Keep the `changed` pins. `texts` are definitions by digest; those of the rows are known too."""
    for tool, pin in changed.items():
        row = session.get(PinRow, (slug, tool))
        known = {**texts, row.digest: row.definition, row.offered: row.offered_definition} if row else texts
        session.merge(
            PinRow(
                server_slug=slug,
                tool=tool,
                definition=known.get(pin.digest, ""),
                offered_definition=known.get(pin.offered, ""),
                **asdict(pin),
            )
        )
    session.flush()


def forget(session: Session, slug: str, tool: str | None = None) -> None:
    """No pin is kept of the tool any more; of no tool, if none is named."""
    gone = delete(PinRow).where(col(PinRow.server_slug) == slug)
    session.execute(gone if tool is None else gone.where(col(PinRow.tool) == tool))


def _by_server(rows: Iterable[Any]) -> defaultdict[str, dict[str, Pin]]:
    found: defaultdict[str, dict[str, Pin]] = defaultdict(dict)
    for slug, tool, *fields in rows:
        found[slug][tool] = Pin(*fields)
    return found
