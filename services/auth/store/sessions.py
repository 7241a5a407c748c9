"""Login sessions, found by the hash of their cookie."""

from sqlmodel import col, select

from services.auth.domain import Session, User
from services.auth.store.database import Database, add_revocations, lock_user, read_as, unix_now
from services.auth.store.models import SessionRow, UserRow


class Sessions:
    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, session: Session, secret_hash: str) -> User | None:
        """Keep a new login. Returns its user; None when the user is no longer active."""
        values = {name: getattr(session, name) for name in session.__slots__}
        with self._database.transaction() as transaction:
            user = lock_user(transaction, session.user_id)
            if user is None or not user.active:
                return None
            transaction.add(SessionRow(**values, secret_hash=secret_hash))
            return read_as(User, user)

    def find(self, secret_hash: str) -> tuple[Session, User] | None:
        """A live session and its active user."""
        query = select(SessionRow, UserRow).where(
            SessionRow.secret_hash == secret_hash,
            SessionRow.user_id == UserRow.id,
            col(SessionRow.ended_at).is_(None),
            SessionRow.expires_at > unix_now(),
            col(UserRow.active),
        )
        with self._database.transaction() as transaction:
            found = transaction.exec(query).first()
            return (read_as(Session, found[0]), read_as(User, found[1])) if found else None

    def end(self, user_id: str, *, only: str = "", all_but: str = "") -> list[str]:
        """End the user's live sessions: the one `only`, or all but one. Returns which ended."""
        with self._database.transaction() as transaction:
            lock_user(transaction, user_id)
            query = select(SessionRow).where(
                SessionRow.user_id == user_id, col(SessionRow.ended_at).is_(None), SessionRow.id != all_but
            )
            if only:
                query = query.where(SessionRow.id == only)
            now, ended = unix_now(), list(transaction.exec(query))
            for row in ended:
                row.ended_at = now
            add_revocations(transaction, [row.id for row in ended], now)
            return [row.id for row in ended]
