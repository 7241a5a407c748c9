"""Users, and everything that ends with their access."""

from sqlalchemy import delete, update
from sqlalchemy.exc import IntegrityError
from sqlmodel import Session, col, select

from libs.common.control.entries import Role
from services.auth.domain import EmailTaken, LastAdministrator, Link, UnknownUser, User, email_key
from services.auth.store.database import Database, add_revocations, lock_user, read_as, unix_now
from services.auth.store.models import Base, GrantRow, LinkRow, RefreshTokenRow, SessionRow, UserRow

# What is deleted with its user: all that names one. Refresh tokens, which name grants, go before.
BELONGINGS = [table for table in Base.metadata.sorted_tables if "user_id" in table.c]


class Users:
    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, user: User, password_hash: str, invitation: Link | None = None) -> None:
        """`password_hash` is empty for somebody who is invited, until they accept. Raises `EmailTaken`."""
        values = {name: getattr(user, name) for name in user.__slots__}
        row = UserRow(**values, email_key=email_key(user.email), password_hash=password_hash)
        try:
            with self._database.transaction() as session:
                session.add(row)
                session.flush()
                if invitation:
                    add_link(session, invitation)
        except IntegrityError as error:
            raise EmailTaken(f"{user.email} is taken.") from error

    def any(self) -> bool:
        with self._database.transaction() as session:
            return session.exec(select(UserRow.id).limit(1)).first() is not None

    def get(self, user_id: str) -> User:
        """Raises `UnknownUser`."""
        with self._database.transaction() as session:
            return read_as(User, _known(session.get(UserRow, user_id)))

    def by_email(self, email: str) -> tuple[User, str] | None:
        """The user and the password's hash."""
        query = select(UserRow).where(UserRow.email_key == email_key(email))
        with self._database.transaction() as session:
            row = session.exec(query).first()
            return (read_as(User, row), row.password_hash) if row else None

    def page(self, after: str, limit: int) -> list[User]:
        """Users with an id greater than `after`, oldest first."""
        query = select(UserRow).where(UserRow.id > after).order_by(UserRow.id).limit(limit)
        with self._database.transaction() as session:
            return [read_as(User, row) for row in session.exec(query)]

    def some(self, ids: list[str] | None) -> list[User]:
        """The users with these ids; all of them for None."""
        query = select(UserRow)
        if ids is not None:
            query = query.where(col(UserRow.id).in_(ids))
        with self._database.transaction() as session:
            return [read_as(User, row) for row in session.exec(query)]

    def set_password(self, user_id: str, password_hash: str) -> None:
        statement = update(UserRow).where(col(UserRow.id) == user_id).values(password_hash=password_hash)
        with self._database.transaction() as session:
            session.execute(statement)

    def change_password(self, user_id: str, password_hash: str, session_id: str) -> list[str]:
        """Set a new password. Ends the links and the other sessions of the user, and returns which ended."""
        with self._database.transaction() as session:
            row = _known(lock_user(session, user_id))
            row.password_hash = password_hash
            end_links(session, user_id)
            return _end_sessions(session, user_id, all_but=session_id)

    def change(
        self, user_id: str, *, name: str | None, role: Role | None, active: bool | None
    ) -> tuple[User, User, list[str]]:
        """The user before and after, and what ended with it: the grants and sessions of somebody who was
        deactivated. Raises `UnknownUser`, `LastAdministrator`."""
        with self._database.transaction() as session:
            _lock_administrators(session)
            row = _known(lock_user(session, user_id))
            before = read_as(User, row)
            row.name = before.name if name is None else name
            row.role = before.role if role is None else role
            row.active = before.active if active is None else active
            row.version += 1
            _require_administrator(session)
            ended = end_everything(session, row) if before.active and not row.active else []
            return before, read_as(User, row), ended

    def delete(self, user_id: str) -> tuple[User, list[str]]:
        """Delete a user with all that is theirs. Returns the grants and sessions that ended with it. Raises
        `UnknownUser`, `LastAdministrator`."""
        with self._database.transaction() as session:
            _lock_administrators(session)
            row = _known(lock_user(session, user_id))
            user, ended = read_as(User, row), end_everything(session, row)
            session.flush()
            theirs = select(GrantRow.id).where(GrantRow.user_id == user_id)
            session.execute(delete(RefreshTokenRow).where(col(RefreshTokenRow.grant_id).in_(theirs)))
            for belonging in BELONGINGS:
                session.execute(delete(belonging).where(belonging.c.user_id == user_id))
            session.delete(row)
            _require_administrator(session)
            return user, ended

    def sign_out_everywhere(self, user_id: str) -> tuple[User, list[str]]:
        """Void every token of the user. Returns the grants and sessions that ended. Raises `UnknownUser`."""
        with self._database.transaction() as session:
            row = _known(lock_user(session, user_id))
            ended = end_everything(session, row)
            return read_as(User, row), ended


def _known(row: UserRow | None) -> UserRow:
    if row is None:
        raise UnknownUser
    return row


# An invitation that nobody has accepted leaves nobody who could let anybody in.
_ADMINISTRATORS = (
    select(UserRow.id)
    .where(UserRow.role == "admin", col(UserRow.active), col(UserRow.joined_at).is_not(None))
    .order_by(UserRow.id)
)


def _lock_administrators(session: Session) -> None:
    """So that two administrators cannot demote each other at once. (SQLite has one writer anyway.)"""
    session.exec(_ADMINISTRATORS.with_for_update()).all()


def _require_administrator(session: Session) -> None:
    """Raises `LastAdministrator` when the changes so far leave none."""
    session.flush()
    if session.exec(_ADMINISTRATORS).first() is None:
        raise LastAdministrator("Make somebody else, who has joined, an administrator first.")


def end_everything(session: Session, row: UserRow) -> list[str]:
    """Void every token and link of a user who is locked. Returns the grants and sessions that ended."""
    now = unix_now()
    grants = select(GrantRow).where(GrantRow.user_id == row.id, col(GrantRow.revoked_at).is_(None))
    ended: list[str] = []
    for grant in session.exec(grants):
        grant.revoked_at = now
        ended.append(grant.id)
    add_revocations(session, ended, now)
    ended += _end_sessions(session, row.id)
    end_links(session, row.id)
    # Tokens of this very second are void too; see `User.issue_time`.
    row.tokens_valid_from = max(row.tokens_valid_from, now) + 1
    row.version += 1
    return ended


def _end_sessions(session: Session, user_id: str, all_but: str = "") -> list[str]:
    now = unix_now()
    live = select(SessionRow).where(
        SessionRow.user_id == user_id, col(SessionRow.ended_at).is_(None), SessionRow.id != all_but
    )
    ended = list(session.exec(live))
    for login in ended:
        login.ended_at = now
    add_revocations(session, [login.id for login in ended], now)
    return [login.id for login in ended]


def add_link(session: Session, link: Link) -> None:
    session.add(LinkRow(**{name: getattr(link, name) for name in link.__slots__}))


def end_links(session: Session, user_id: str) -> None:
    session.execute(delete(LinkRow).where(col(LinkRow.user_id) == user_id))
