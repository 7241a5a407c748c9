"""What was ended lately, and clearing away what is over."""

from sqlalchemy import delete, or_
from sqlmodel import col, select

from services.auth.domain import REVOCATION_KEPT
from services.auth.store.database import Database, unix_now
from services.auth.store.models import CodeRow, GrantRow, RefreshTokenRow, RevocationRow, SessionRow

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
            # Replaced refresh tokens stay until they expire: their reuse has to be noticed.
            session.execute(delete(CodeRow).where(col(CodeRow.expires_at) < now - CODE_REMEMBERED))
            session.execute(
                delete(RefreshTokenRow).where(
                    or_(col(RefreshTokenRow.expires_at) < now, col(RefreshTokenRow.grant_id).in_(dead))
                )
            )
            session.execute(delete(SessionRow).where(col(SessionRow.expires_at) < now))
            session.execute(delete(RevocationRow).where(col(RevocationRow.at) < now - REVOCATION_KEPT))
