"""Rows that have to be there."""

from sqlmodel import Session

from services.policy.domain import UnknownGroup, UnknownServer
from services.policy.tables import GroupRow, ServerRow


def server_row_of(session: Session, slug: str) -> ServerRow:
    """Raises `UnknownServer`."""
    row = session.get(ServerRow, slug)
    if row is None:
        raise UnknownServer(f"No server is called {slug[:80]!r}.")
    return row


def group_row(session: Session, group: str) -> GroupRow:
    """Raises `UnknownGroup`."""
    row = session.get(GroupRow, group)
    if row is None:
        raise UnknownGroup(f"No group is called {group[:80]!r}.")
    return row
