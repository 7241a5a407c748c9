"""Signing keys, and the secrets that the replicas of this service share."""

from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select

from services.auth.store.database import Database, unix_now
from services.auth.store.models import SecretRow, SigningKeyRow


class Keys:
    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, kid: str, jwk: dict[str, str]) -> None:
        with self._database.transaction() as session:
            session.add(SigningKeyRow(kid=kid, jwk=jwk, created_at=unix_now()))

    def live(self) -> list[dict[str, str]]:
        """Private JWKs that are not retired, oldest first."""
        query = select(SigningKeyRow).where(col(SigningKeyRow.retired_at).is_(None))
        with self._database.transaction() as session:
            rows = session.exec(query.order_by(col(SigningKeyRow.created_at), col(SigningKeyRow.kid)))
            return [row.jwk for row in rows]

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
