"""Login sessions, found by the hash of their cookie."""

from sqlalchemy import ColumnElement, update
from sqlmodel import col, select

from services.auth.domain import Session, UnknownSession, User
from services.auth.store.database import Database, add_revocations, lock_user, one_row, read_as, unix_now
from services.auth.store.models import SessionRow, UserRow


class Sessions:
    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, session: Session, secret_hash: str) -> User | None:
        """Keep a new login, with which somebody who was invited has joined. Returns its user; None when the
        user is no longer active."""
        values = {name: getattr(session, name) for name in session.__slots__}
        with self._database.transaction() as transaction:
            user = lock_user(transaction, session.user_id)
            if user is None or not user.active:
                return None
            user.joined_at = user.joined_at or session.created_at
            transaction.add(SessionRow(**values, secret_hash=secret_hash))
            return read_as(User, user)

    def find(self, secret_hash: str) -> tuple[Session, User] | None:
        """A live session and its active user."""
        query = select(SessionRow, UserRow).where(
            SessionRow.secret_hash == secret_hash,
            SessionRow.user_id == UserRow.id,
            col(UserRow.active),
            *_live(),
        )
        with self._database.transaction() as transaction:
            found = transaction.exec(query).first()
            return (read_as(Session, found[0]), read_as(User, found[1])) if found else None

    def get(self, session_id: str) -> Session:
        """A live session. Raises `UnknownSession`."""
        query = select(SessionRow).where(SessionRow.id == session_id, *_live())
        with self._database.transaction() as transaction:
            row = transaction.exec(query).first()
            if row is None:
                raise UnknownSession
            return read_as(Session, row)

    def live_of(self, user_id: str, after: str = "", limit: int = 1000) -> list[Session]:
        """The user's live sessions, oldest first."""
        query = (
            select(SessionRow)
            .where(SessionRow.user_id == user_id, SessionRow.id > after, *_live())
            .order_by(SessionRow.id)
            .limit(limit)
        )
        with self._database.transaction() as transaction:
            return [read_as(Session, row) for row in transaction.exec(query)]

    def end(self, user_id: str, session_id: str) -> list[str]:
        """End a session of the user. Returns which ended: it, or nothing."""
        ending = update(SessionRow).where(
            col(SessionRow.id) == session_id,
            col(SessionRow.user_id) == user_id,
            col(SessionRow.ended_at).is_(None),
        )
        with self._database.transaction() as transaction:
            now = unix_now()
            if not one_row(transaction, ending.values(ended_at=now)):
                return []
            add_revocations(transaction, [session_id], now)
            return [session_id]


def _live() -> list[ColumnElement[bool]]:
    return [col(SessionRow.ended_at).is_(None), col(SessionRow.expires_at) > unix_now()]
