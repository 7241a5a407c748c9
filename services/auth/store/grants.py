"""Authorization codes, grants and refresh tokens. Each step of a grant's life is one transaction that begins
by taking what it consumes, so that of two requests with the same code or token one comes first."""

from dataclasses import replace

from sqlalchemy import Connection, bindparam, insert, update
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
from services.auth.store.database import (
    Database,
    add_revocations,
    hold_user,
    lock_user,
    one_row,
    read_as,
    unix_now,
)
from services.auth.store.models import Base, CodeRow, GrantRow, RefreshTokenRow, UserRow


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
            if not one_row(session, take.values(used_at=now)):
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

    # Clients ask for little else, so this is done with statements that are built once, without the ORM.

    def find_refresh_token(self, token_hash: str) -> RefreshToken | None:
        with self._database.engine.connect() as connection:
            token = connection.execute(_FIND_TOKEN, {"hash": token_hash}).first()
            if token is None:
                return None
            grant = connection.execute(_FIND_GRANT, {"id": token.grant_id}).one()
            return read_as(RefreshToken, token, grant=read_as(Grant, grant))

    def rotate(self, token: RefreshToken, successor_hash: str) -> Issue | None:
        """Replace `token` by its successor, or repeat that within the window. None if the token was replaced
        before that: somebody has a copy. None too if the grant or its user is gone, which is told apart by
        `Grant.revoked_at`."""
        with self._database.writing() as connection:
            user, now = hold_user(connection, token.grant.user_id), unix_now()
            taken = connection.execute(_TAKE_TOKEN, {"taken": token.hash, "now": now}).rowcount == 1
            used = connection.execute(_USE_GRANT, {"used": token.grant.id, "now": now}).rowcount == 1
            if user is None or not user.active or not used:
                return None
            if taken:
                expiry = now + REFRESH_LIFETIME
                values = {"hash": successor_hash, "grant_id": token.grant.id, "expires_at": expiry}
                connection.execute(_ADD_TOKEN, values)
            elif not _replaced_just_now(connection, token.hash, now):
                return None
            # Now, while the user is held: whatever ends this user's access comes after it.
            return Issue(user, replace(token.grant, last_used_at=now), user.issue_time(unix_now()))

    # -- grants -----------------------------------------------------------------------------------

    def get(self, grant_id: str) -> Grant:
        """Raises `UnknownGrant`."""
        with self._database.transaction() as session:
            row = session.get(GrantRow, grant_id)
            if row is None:
                raise UnknownGrant
            return read_as(Grant, row)

    def standing(self, grant_id: str) -> tuple[Grant, User] | None:
        """A grant that has not ended, and its active user."""
        query = select(GrantRow, UserRow).where(
            GrantRow.id == grant_id,
            col(GrantRow.revoked_at).is_(None),
            UserRow.id == GrantRow.user_id,
            col(UserRow.active),
        )
        with self._database.transaction() as session:
            found = session.exec(query).first()
            return (read_as(Grant, found[0]), read_as(User, found[1])) if found else None

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
            if not one_row(session, statement.values(revoked_at=now)):
                return False
            add_revocations(session, [grant_id], now)
            return True


_GRANTS, _TOKENS = (Base.metadata.tables[name] for name in ("grants", "refresh_tokens"))
_FIND_TOKEN = select(*_TOKENS.c).where(_TOKENS.c.hash == bindparam("hash"))
_FIND_GRANT = select(*_GRANTS.c).where(_GRANTS.c.id == bindparam("id"))
_TAKE_TOKEN = (
    update(_TOKENS)
    .where(_TOKENS.c.hash == bindparam("taken"), _TOKENS.c.replaced_at.is_(None))
    .values(replaced_at=bindparam("now"))
)
_USE_GRANT = (
    update(_GRANTS)
    .where(_GRANTS.c.id == bindparam("used"), _GRANTS.c.revoked_at.is_(None))
    .values(last_used_at=bindparam("now"))
)
_ADD_TOKEN = insert(_TOKENS)

_FROM_CODE = ("user_id", "client_id", "client_name", "redirect_host", "audience", "scope")


def _add_refresh_token(session: Session, token_hash: str, grant_id: str) -> None:
    session.add(RefreshTokenRow(hash=token_hash, grant_id=grant_id, expires_at=unix_now() + REFRESH_LIFETIME))


def _replaced_just_now(connection: Connection, token_hash: str, now: int) -> bool:
    row = connection.execute(_FIND_TOKEN, {"hash": token_hash}).first()
    return row is not None and row.replaced_at is not None and now - row.replaced_at <= REPEAT_WINDOW


def _issue(session: Session, user: User, grant: GrantRow) -> Issue:
    """The time is taken while the user is locked: whatever ends this user's access comes after it."""
    session.flush()
    return Issue(user, read_as(Grant, grant), user.issue_time(unix_now()))
