"""Every query of the vault. Synchronous: call it from a thread.

A write takes the next version first, which also makes the writers of all replicas queue up.
"""

import hmac
from collections.abc import Collection, Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, tuple_, update
from sqlmodel import Session, col, select

from libs.common.clock import iso, now
from libs.common.control.entries import AnyEntry
from libs.common.settings import BadSettings
from services.credentials import masterkey
from services.credentials.domain import (
    NOBODY,
    Change,
    Credential,
    CredentialUnreadable,
    NoCredential,
    Owner,
    Placement,
    Secret,
)
from services.credentials.settings import CredentialsSettings
from services.credentials.tables import CredentialRow, VaultRow
from services.credentials.vault import Vault

KINDS = ("credential",)
_VAULT_ID = 1


class CredentialStore:
    """The credentials of one vault."""

    def __init__(self, engine: Engine, vault: Vault) -> None:
        self._engine, self._vault = engine, vault

    @contextmanager
    def _write(self) -> Iterator[tuple[Session, int]]:
        """One transaction and the version for the rows that it changes."""
        with Session(self._engine) as session, session.begin():
            taken = update(VaultRow).values(last_version=VaultRow.last_version + 1)
            yield session, session.execute(taken.returning(col(VaultRow.last_version))).scalar_one()

    def credentials(self, after: Owner = NOBODY, limit: int | None = None) -> list[Credential]:
        """Credentials, without their keys, by slug and user, from the one following `after`."""
        place = tuple_(col(CredentialRow.slug), col(CredentialRow.user_id))
        query = select(CredentialRow).where(place > tuple_(after.slug, after.user))
        query = query.order_by(col(CredentialRow.slug), col(CredentialRow.user_id)).limit(limit)
        with Session(self._engine) as session:
            return [_credential(row) for row in session.exec(query)]

    def credential(self, owner: Owner) -> Credential:
        """The credential, without its key. Raises `NoCredential`."""
        with Session(self._engine) as session:
            return _credential(_row(session, owner))

    def open(self, owner: Owner) -> tuple[Credential, Secret]:
        """The credential with its key. Raises `NoCredential`, `CredentialUnreadable`."""
        with Session(self._engine) as session:
            row = _row(session, owner)
            return _credential(row), self._vault.open(row.envelope, _credential(row))

    def put(self, owner: Owner, secret: Secret, origin: str, changed_by: str) -> Change:
        """Store `secret` for `origin`; what is there already keeps its version."""
        with self._write() as (session, version):
            row = session.get(CredentialRow, (owner.slug, owner.user))
            before = _credential(row) if row else None
            if row and row.origin == origin and self._holds(row, secret):
                return Change(before, before)
            row = row or CredentialRow(slug=owner.slug, user_id=owner.user)  # type: ignore[call-arg]
            _place(row, secret.placement)
            row.origin, row.version = origin, version
            row.changed_at, row.changed_by = iso(now()), changed_by
            after = _credential(row)
            row.envelope = self._vault.seal(secret.key, after)
            session.add(row)
            return Change(before, after)

    def delete(self, owner: Owner) -> Change:
        """Delete the credential. One that is not there is no error."""
        with self._write() as (session, _):
            row = session.get(CredentialRow, (owner.slug, owner.user))
            if row is None:
                return Change(None, None)
            session.delete(row)
            return Change(_credential(row), None)

    def entries(self, keys: Collection[str] | None) -> dict[str, AnyEntry]:
        """The entries that `keys` should have in the control log; `None` asks for all of them."""
        if keys is None:
            return {credential.owner.key: credential.entry() for credential in self.credentials()}
        owners = [Owner(*key.split(".", 2)[1:]) for key in keys]
        with Session(self._engine) as session:
            rows = [session.get(CredentialRow, (owner.slug, owner.user)) for owner in owners]
            found = [_credential(row) for row in rows if row]
        return {credential.owner.key: credential.entry() for credential in found}

    def _holds(self, row: CredentialRow, secret: Secret) -> bool:
        try:
            present = self._vault.open(row.envelope, _credential(row))
        except CredentialUnreadable:
            return False
        same_key = hmac.compare_digest(present.key.encode(), secret.key.encode())
        return same_key and present.placement == secret.placement


def unlock(engine: Engine, settings: CredentialsSettings) -> Vault:
    """The vault of that database, with its master key. Raises `BadSettings` when that is missing or wrong."""
    with Session(engine) as session, session.begin():
        session.execute(update(VaultRow).values(last_version=VaultRow.last_version))  # one replica at a time
        row = session.get_one(VaultRow, _VAULT_ID)
        vault = Vault(masterkey.load(settings, vault_exists=row.check_value is not None))
        if row.check_value is None:
            row.check_value = vault.seal_check()
        elif not vault.knows(row.check_value):
            raise BadSettings(
                "LOCKGATE_CREDENTIALS_MASTER_KEY: this is not the master key that the vault was sealed with. "
                "Start with the key that was in use, or restore the file that held it"
            )
        return vault


def _row(session: Session, owner: Owner) -> CredentialRow:
    row = session.get(CredentialRow, (owner.slug, owner.user))
    if row is None:
        raise NoCredential(f"No credential is stored for {owner.slug}.")
    return row


def _place(row: CredentialRow, placement: Placement) -> None:
    row.header, row.template, row.environment = placement.header, placement.template, placement.environment


def _credential(row: CredentialRow) -> Credential:
    return Credential(
        owner=Owner(row.slug, row.user_id),
        placement=Placement(row.header, row.template, row.environment),
        origin=row.origin,
        version=row.version,
        changed_at=row.changed_at,
        changed_by=row.changed_by,
    )
