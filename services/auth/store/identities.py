"""Who people are at the organization's OpenID provider."""

from sqlalchemy import delete, update
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from services.auth.domain import User, email_key
from services.auth.sso.domain import Identity
from services.auth.store.database import Database, lock_user, one_row, read_as, unix_now
from services.auth.store.models import IdentityRow, UserRow
from services.auth.store.users import end_links


class Identities:
    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, issuer: str, subject: str) -> User | None:
        """The user, active or not, whom the provider means."""
        query = select(UserRow).where(
            IdentityRow.issuer == issuer, IdentityRow.subject == subject, IdentityRow.user_id == UserRow.id
        )
        with self._database.transaction() as session:
            row = session.exec(query).first()
            return read_as(User, row) if row else None

    def of(self, user_id: str) -> list[Identity]:
        query = select(IdentityRow).where(IdentityRow.user_id == user_id).order_by(IdentityRow.issuer)
        with self._database.transaction() as session:
            return [read_as(Identity, row) for row in session.exec(query)]

    def join(self, user: User, identity: Identity) -> bool:
        """Add a new user, without a password, who is `identity`. False when the address or the identity was
        taken meanwhile."""
        values = {name: getattr(user, name) for name in user.__slots__}
        row = UserRow(**values, email_key=email_key(user.email), password_hash="")
        try:
            with self._database.transaction() as session:
                session.add(row)
                session.flush()
                _add(session, identity)
        except IntegrityError:
            return False
        return True

    def link(self, identity: Identity) -> User | None:
        """Let an active user be `identity` from now on; somebody who was invited has joined with that. None
        when they are somebody else at this provider already, or gone."""
        try:
            with self._database.transaction() as session:
                user = lock_user(session, identity.user_id)
                if user is None or not user.active:
                    return None
                _add(session, identity)
                end_links(session, user.id)  # an invitation is accepted with that
                user.joined_at = user.joined_at or unix_now()
                session.flush()
                return read_as(User, user)
        except IntegrityError:
            return None

    def unlink(self, user_id: str) -> list[Identity]:
        """Forget who a user is at any provider. Returns what was forgotten."""
        found = self.of(user_id)
        with self._database.transaction() as session:
            session.execute(delete(IdentityRow).where(col(IdentityRow.user_id) == user_id))
        return found

    def touch(self, issuer: str, subject: str, email: str) -> bool:
        """Note that the identity was used now, under this address."""
        statement = update(IdentityRow).where(
            col(IdentityRow.issuer) == issuer, col(IdentityRow.subject) == subject
        )
        with self._database.transaction() as session:
            return one_row(session, statement.values(last_used_at=unix_now(), email=email))


def _add(session: Session, identity: Identity) -> None:
    session.add(IdentityRow(**{name: getattr(identity, name) for name in identity.__slots__}))
