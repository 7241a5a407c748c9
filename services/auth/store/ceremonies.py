"""Steps of signing in that a browser has begun, found by the hash of what it holds."""

from sqlalchemy import delete, update
from sqlmodel import Session, col

from services.auth.domain import Ceremony, CeremonyKind
from services.auth.store.database import Database, one_row, read_as, unix_now
from services.auth.store.models import CeremonyRow


class Ceremonies:
    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, ceremony: Ceremony) -> None:
        """Keep a new one. Those that have expired are forgotten."""
        with self._database.transaction() as session:
            session.execute(delete(CeremonyRow).where(col(CeremonyRow.expires_at) <= unix_now()))
            session.add(CeremonyRow(**{name: getattr(ceremony, name) for name in ceremony.__slots__}))

    def find(self, kind: CeremonyKind, ceremony_hash: str) -> Ceremony | None:
        """A ceremony that can still be finished."""
        with self._database.transaction() as session:
            return _live(session, kind, ceremony_hash)

    def attempt(self, kind: CeremonyKind, ceremony_hash: str, most: int) -> Ceremony | None:
        """Note an attempt to finish it. None when there have been `most` already, or it is gone."""
        count = update(CeremonyRow).where(
            col(CeremonyRow.hash) == ceremony_hash, col(CeremonyRow.attempts) < most
        )
        with self._database.transaction() as session:
            if not one_row(session, count.values(attempts=CeremonyRow.attempts + 1)):
                return None
            return _live(session, kind, ceremony_hash)

    def take(self, kind: CeremonyKind, ceremony_hash: str) -> Ceremony | None:
        """End a ceremony. Of several who try one gets it."""
        with self._database.transaction() as session:
            # A write first: it takes the lock, so that what is read is what is deleted.
            session.execute(delete(CeremonyRow).where(col(CeremonyRow.expires_at) <= unix_now()))
            found = _live(session, kind, ceremony_hash)
            gone = delete(CeremonyRow).where(col(CeremonyRow.hash) == ceremony_hash)
            return found if one_row(session, gone) else None


def _live(session: Session, kind: CeremonyKind, ceremony_hash: str) -> Ceremony | None:
    row = session.get(CeremonyRow, ceremony_hash, populate_existing=True)
    if row is None or row.kind != kind or row.expires_at <= unix_now():
        return None
    return read_as(Ceremony, row)
