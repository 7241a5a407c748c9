"""Transactions of the vault. A write takes the next version first, which also makes the writers of all
replicas queue up."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from sqlalchemy import Engine, update
from sqlmodel import Session, col, select

from libs.common.errors import Conflict
from services.credentials.tables import AccountRow, MasterKeyRow, ProviderRow, VaultRow
from services.credentials.vault import DataKey, Envelope, Vault

VAULT_ID = 1

Sealed = TypeVar("Sealed", AccountRow, ProviderRow, MasterKeyRow)


class KeyRetired(Conflict):
    """The data key was wrapped before the vault went over to another master key: take a new one."""

    type, title = "master-key-changed", "The master key was changed at this moment"


class Database:
    """The vault's database and the keys that open it. Everything blocks: call it from a thread."""

    def __init__(self, engine: Engine, vault: Vault) -> None:
        self.engine, self.vault = engine, vault

    @contextmanager
    def read(self) -> Iterator[Session]:
        with Session(self.engine) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[tuple[Session, int]]:
        """One transaction and the version for the rows that it changes."""
        with Session(self.engine) as session, session.begin():
            taken = update(VaultRow).values(last_version=VaultRow.last_version + 1)
            yield session, session.execute(taken.returning(col(VaultRow.last_version))).scalar_one()

    def key_id(self) -> str:
        """The master key that wraps what is new."""
        with self.read() as session:
            return session.exec(select(VaultRow.key_id)).one()

    def new_data_key(self, name: str) -> DataKey:
        """A data key for the record `name`. Take it before the transaction: it may have to be asked for."""
        return self.vault.new_data_key(name, self.key_id())


def seal(session: Session, data_key: DataKey, secret: bytes, identity: bytes) -> Envelope:
    """The envelope of `secret`, within a transaction of `write`. Raises `KeyRetired`, so that nothing is ever
    wrapped by a master key that an administrator was told is not needed any more."""
    if session.get(MasterKeyRow, data_key.key_id) is None:
        raise KeyRetired("Try it again.")
    return data_key.seal(secret, identity)


def envelope_of(row: Sealed) -> Envelope:
    key_id = row.id if isinstance(row, MasterKeyRow) else row.key_id
    return Envelope(key_id, row.wrapped_key, row.box)


def put_envelope(row: AccountRow | ProviderRow, envelope: Envelope) -> None:
    row.key_id, row.wrapped_key, row.box = envelope.key_id, envelope.wrapped_key, envelope.box
