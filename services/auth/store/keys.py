"""Signing keys, and the secrets that the replicas of this service share."""

from sqlalchemy import update
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select

from services.auth.domain import SigningKey
from services.auth.store.database import Database, read_as, unix_now
from services.auth.store.models import SecretRow, SigningKeyRow


class Keys:
    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, number: int, kid: str, jwk: dict[str, str]) -> bool:
        """Add the `number`th key. False if another replica was first."""
        try:
            with self._database.transaction() as session:
                session.add(SigningKeyRow(kid=kid, number=number, jwk=jwk, created_at=unix_now()))
        except IntegrityError:
            return False
        return True

    def live(self) -> list[SigningKey]:
        """The keys that are not retired, oldest first."""
        query = select(SigningKeyRow).where(col(SigningKeyRow.retired_at).is_(None))
        with self._database.transaction() as session:
            return [
                read_as(SigningKey, row) for row in session.exec(query.order_by(col(SigningKeyRow.number)))
            ]

    def published(self, kids: list[str]) -> None:
        """Note that everybody who verifies knows these keys."""
        note = update(SigningKeyRow).where(
            col(SigningKeyRow.kid).in_(kids), col(SigningKeyRow.published_at).is_(None)
        )
        with self._database.transaction() as session:
            session.execute(note.values(published_at=unix_now()))

    def retire(self, kid: str) -> None:
        """Let a key verify nothing any more, and forget its private part."""
        with self._database.transaction() as session:
            row = session.get(SigningKeyRow, kid)
            if row and row.retired_at is None:
                row.retired_at = unix_now()
                row.jwk = {name: value for name, value in row.jwk.items() if name != "d"}

    def version(self) -> int:
        """Grows whenever a key is added or retired."""
        with self._database.transaction() as session:
            rows = session.exec(select(SigningKeyRow)).all()
            return len(rows) + sum(row.retired_at is not None for row in rows)

    def shared_secret(self, name: str, proposal: str) -> str:
        """The secret `name`, which is `proposal` from now on if there was none."""
        try:
            with self._database.transaction() as session:
                row = session.get(SecretRow, name)
                if row is None:
                    session.add(SecretRow(name=name, value=proposal))
                return row.value if row else proposal
        except IntegrityError:  # another replica was first
            return self.shared_secret(name, proposal)
