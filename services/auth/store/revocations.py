"""What was ended lately, and clearing away what is over."""

from sqlalchemy import delete, or_, update
from sqlmodel import Session, col, select

from services.auth.domain import GRANT_KEPT, REVOCATION_KEPT
from services.auth.store.database import Database, unix_now
from services.auth.store.models import (
    CodeRow,
    GrantRow,
    LinkRow,
    RefreshTokenRow,
    RevocationRow,
    SessionRow,
)

# A used code is remembered for a while, so that its reuse is noticed.
CODE_REMEMBERED = 24 * 3600


class Revocations:
    def __init__(self, database: Database) -> None:
        self._database = database

    def recent(self, ids: list[str] | None) -> dict[str, int]:
        """Id of the grant or session -> when it ended, while that can still matter."""
        query = select(RevocationRow).where(RevocationRow.at > unix_now() - REVOCATION_KEPT)
        if ids is not None:
            query = query.where(col(RevocationRow.id).in_(ids))
        with self._database.transaction() as session:
            return {row.id: row.at for row in session.exec(query)}

    def sweep(self) -> None:
        """Delete what nothing asks for any more."""
        now = unix_now()
        dead = select(GrantRow.id).where(col(GrantRow.revoked_at).is_not(None))
        with self._database.transaction() as session:
            session.execute(delete(LinkRow).where(col(LinkRow.expires_at) < now))
            _end_expired(session, now)
            # Replaced refresh tokens stay until they expire: their reuse has to be noticed.
            session.execute(delete(CodeRow).where(col(CodeRow.expires_at) < now - CODE_REMEMBERED))
            session.execute(
                delete(RefreshTokenRow).where(
                    or_(col(RefreshTokenRow.expires_at) < now, col(RefreshTokenRow.grant_id).in_(dead))
                )
            )
            session.execute(delete(GrantRow).where(col(GrantRow.revoked_at) < now - GRANT_KEPT))
            session.execute(delete(SessionRow).where(col(SessionRow.expires_at) < now))
            session.execute(delete(RevocationRow).where(col(RevocationRow.at) < now - REVOCATION_KEPT))


def _end_expired(session: Session, now: int) -> None:
    """End the grants whose tokens have all expired: the last refresh token, or the only access token."""
    refreshable = select(RefreshTokenRow.grant_id).where(
        col(RefreshTokenRow.expires_at) >= now, col(RefreshTokenRow.replaced_at).is_(None)
    )
    expired = update(GrantRow).where(
        col(GrantRow.revoked_at).is_(None),
        col(GrantRow.last_used_at) < now - REVOCATION_KEPT,
        col(GrantRow.id).not_in(refreshable),
    )
    session.execute(expired.values(revoked_at=now))
