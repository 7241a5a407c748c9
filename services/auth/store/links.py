"""One-time links by which people set their password. A link that is used, replaced or void is deleted."""

from sqlalchemy import delete
from sqlmodel import Session, col, select

from services.auth.domain import (
    AlreadyJoined,
    BadLink,
    Deactivated,
    Link,
    LinkPurpose,
    NotJoined,
    UnknownUser,
    User,
)
from services.auth.store.database import Database, lock_user, one_row, read_as, unix_now
from services.auth.store.models import LinkRow, UserRow
from services.auth.store.users import add_link, end_everything, end_links


class Links:
    def __init__(self, database: Database) -> None:
        self._database = database

    def replace(self, link: Link) -> User:
        """Keep `link`; the user's earlier ones are void. An invitation is for somebody who has not joined, a
        reset for somebody who has. Raises `UnknownUser`, `Deactivated`, `AlreadyJoined`, `NotJoined`."""
        with self._database.transaction() as session:
            user = lock_user(session, link.user_id)
            if user is None:
                raise UnknownUser
            if not user.active:
                raise Deactivated("Activate it first.")
            if link.purpose == "invitation" and user.joined_at is not None:
                raise AlreadyJoined("Make a link to reset the password instead.")
            if link.purpose == "reset" and user.joined_at is None:
                raise NotJoined("Make a new invitation instead.")
            end_links(session, link.user_id)
            add_link(session, link)
            return read_as(User, user)

    def find(self, purpose: LinkPurpose, link_hash: str) -> User:
        """The person for whom a link is. Raises `BadLink`."""
        with self._database.transaction() as session:
            row = _live(session, purpose, link_hash)
            user = session.get(UserRow, row.user_id) if row else None
            if user is None or not user.active:
                raise BadLink
            return read_as(User, user)

    def use(self, purpose: LinkPurpose, link_hash: str, password_hash: str) -> tuple[User, list[str]]:
        """Set the password of the person for whom a link is, and void the link. A reset ends everything of
        theirs: the grants and sessions that ended are returned. Raises `BadLink`."""
        with self._database.transaction() as session:
            row = _live(session, purpose, link_hash)
            if row is None or not one_row(session, delete(LinkRow).where(col(LinkRow.hash) == link_hash)):
                raise BadLink
            user = lock_user(session, row.user_id)
            if user is None or not user.active:
                raise BadLink
            user.password_hash = password_hash
            user.joined_at = user.joined_at or unix_now()
            ended = end_everything(session, user) if purpose == "reset" else []
            return read_as(User, user), ended


def _live(session: Session, purpose: LinkPurpose, link_hash: str) -> LinkRow | None:
    query = select(LinkRow).where(
        LinkRow.hash == link_hash, LinkRow.purpose == purpose, LinkRow.expires_at > unix_now()
    )
    return session.exec(query).first()
