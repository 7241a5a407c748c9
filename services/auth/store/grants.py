"""Authorization codes, grants and refresh tokens. Each step of a grant's life is one transaction that begins
by taking what it consumes, so that of two requests with the same code or token one comes first."""

from typing import cast

from sqlalchemy import CursorResult, Update, update
from sqlmodel import Session, col, select

from services.auth.domain import (
    REFRESH_LIFETIME,
    REPEAT_WINDOW,
    Code,
    Grant,
    Issue,
    RefreshToken,
    UnknownGrant,
    User,
)
from services.auth.store.database import Database, add_revocations, lock_user, read_as, unix_now
from services.auth.store.models import CodeRow, GrantRow, RefreshTokenRow


class Grants:
    def __init__(self, database: Database) -> None:
        self._database = database

    # -- codes ------------------------------------------------------------------------------------

    def add_code(self, code: Code) -> None:
        with self._database.transaction() as session:
            session.add(CodeRow(**{name: getattr(code, name) for name in code.__slots__}))

    def find_code(self, code_hash: str) -> Code | None:
        with self._database.transaction() as session:
            row = session.get(CodeRow, code_hash)
            return read_as(Code, row) if row else None

    def redeem(self, code: Code, refresh_hash: str | None) -> Issue | None:
        """Use `code`: make its grant, with a first refresh token. None if the code was used before, or its
        user is no longer active."""
        take = update(CodeRow).where(col(CodeRow.hash) == code.hash, col(CodeRow.used_at).is_(None))
        with self._database.transaction() as session:
            now = unix_now()
            if not _one_row(session, take.values(used_at=now)):
                return None
            user = lock_user(session, code.user_id)
            if user is None or not user.active:
                return None
            grant = GrantRow(
                id=code.grant_id,
                created_at=now,
                last_used_at=now,
                **{name: getattr(code, name) for name in _FROM_CODE},
            )
            session.add(grant)
            session.flush()
            if refresh_hash:
                _add_refresh_token(session, refresh_hash, grant.id)
            return _issue(session, read_as(User, user), grant)

    # -- refresh tokens ---------------------------------------------------------------------------

    def find_refresh_token(self, token_hash: str) -> RefreshToken | None:
        query = select(RefreshTokenRow, GrantRow).where(
            RefreshTokenRow.hash == token_hash, RefreshTokenRow.grant_id == GrantRow.id
        )
        with self._database.transaction() as session:
            found = session.exec(query).first()
            return read_as(RefreshToken, found[0], grant=read_as(Grant, found[1])) if found else None

    def rotate(self, token: RefreshToken, successor_hash: str) -> Issue | None:
        """Replace `token` by its successor, or repeat that within the window. None if the token was replaced
        before that: somebody has a copy. None too if the grant or its user is gone, which is told apart by
        `Grant.revoked_at`."""
        take = update(RefreshTokenRow).where(
            col(RefreshTokenRow.hash) == token.hash, col(RefreshTokenRow.replaced_at).is_(None)
        )
        with self._database.transaction() as session:
            now = unix_now()
            first = _one_row(session, take.values(replaced_at=now))
            user = lock_user(session, token.grant.user_id)
            grant = session.get(GrantRow, token.grant.id, populate_existing=True)
            if user is None or not user.active or grant is None or grant.revoked_at is not None:
                return None
            if first:
                _add_refresh_token(session, successor_hash, grant.id)
            elif not _replaced_just_now(session, token.hash, now):
                return None
            grant.last_used_at = now
            return _issue(session, read_as(User, user), grant)

    # -- grants -----------------------------------------------------------------------------------

    def get(self, grant_id: str) -> Grant:
        """Raises `UnknownGrant`."""
        with self._database.transaction() as session:
            row = session.get(GrantRow, grant_id)
            if row is None:
                raise UnknownGrant
            return read_as(Grant, row)

    def live_of(self, user_id: str, after: str = "", limit: int = 1000) -> list[Grant]:
        """The user's grants that are not revoked, oldest first."""
        query = (
            select(GrantRow)
            .where(GrantRow.user_id == user_id, col(GrantRow.revoked_at).is_(None), GrantRow.id > after)
            .order_by(GrantRow.id)
            .limit(limit)
        )
        with self._database.transaction() as session:
            return [read_as(Grant, row) for row in session.exec(query)]

    def revoke(self, grant_id: str) -> bool:
        """End a grant. False when there is none, or it was revoked before."""
        statement = update(GrantRow).where(col(GrantRow.id) == grant_id, col(GrantRow.revoked_at).is_(None))
        with self._database.transaction() as session:
            now = unix_now()
            if not _one_row(session, statement.values(revoked_at=now)):
                return False
            add_revocations(session, [grant_id], now)
            return True


_FROM_CODE = ("user_id", "client_id", "client_name", "redirect_host", "audience", "scope")


def _one_row(session: Session, statement: Update) -> bool:
    result = cast(CursorResult[object], session.execute(statement))
    return result.rowcount == 1


def _add_refresh_token(session: Session, token_hash: str, grant_id: str) -> None:
    session.add(RefreshTokenRow(hash=token_hash, grant_id=grant_id, expires_at=unix_now() + REFRESH_LIFETIME))


def _replaced_just_now(session: Session, token_hash: str, now: int) -> bool:
    row = session.get(RefreshTokenRow, token_hash, populate_existing=True)
    return row is not None and row.replaced_at is not None and now - row.replaced_at <= REPEAT_WINDOW


def _issue(session: Session, user: User, grant: GrantRow) -> Issue:
    """The time is taken while the user is locked: whatever ends this user's access comes after it."""
    session.flush()
    return Issue(user, read_as(Grant, grant), user.issue_time(unix_now()))
