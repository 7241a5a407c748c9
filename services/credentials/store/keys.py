"""Every query of master keys: which one wraps what is new, and which records another one still wraps."""

from dataclasses import dataclass
from typing import TypeAlias

from sqlalchemy import Engine, func, or_, update
from sqlmodel import Session, col, select

from libs.common.clock import iso, now
from libs.common.settings import BadSettings
from services.credentials.domain import CredentialUnreadable
from services.credentials.masterkey.port import MasterKey, MasterKeyUnavailable
from services.credentials.store import legacy
from services.credentials.store.database import VAULT_ID, Database, envelope_of
from services.credentials.store.providers import name_of_provider
from services.credentials.store.rows import name_of
from services.credentials.tables import AccountRow, MasterKeyRow, ProviderRow, VaultRow
from services.credentials.vault import Envelope, MasterKeyMissing, Vault

_CHECK = b"lockgate vault check value"

Record: TypeAlias = tuple[type[AccountRow] | type[ProviderRow], str, Envelope]


@dataclass(frozen=True, slots=True)
class RotationState:
    """How far the records are wrapped by the master key `key_id`. `since` is when it became the one."""

    key_id: str
    since: str
    done: int
    total: int
    others: tuple[str, ...]  # ids of earlier keys that still wrap something

    @property
    def complete(self) -> bool:
        return not self.others


class MasterKeys:
    """The master keys of one vault."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def state(self) -> RotationState:
        with self._database.read() as session:
            key_id = session.exec(select(VaultRow.key_id)).one()
            counts = _counts(session)
            keys = {row.id: row.used_since for row in session.exec(select(MasterKeyRow))}
        others = sorted((counts.keys() | keys.keys()) - {key_id})
        return RotationState(
            key_id, keys.get(key_id, ""), counts.get(key_id, 0), sum(counts.values()), tuple(others)
        )

    def use(self, key_id: str) -> bool:
        """Wrap what is new with that master key from now on. Whether it is another than before. Raises as
        `Vault.new_data_key`."""
        check = _check_row(self._database.vault, key_id)
        with self._database.write() as (session, _):
            if session.get_one(VaultRow, VAULT_ID).key_id == key_id:
                return False
            if session.get(MasterKeyRow, key_id) is None:
                session.add(check)
            session.execute(update(VaultRow).values(key_id=key_id))
            return True

    def pending(self, limit: int) -> list[Record]:
        """Some of the records that another master key wraps."""
        found: list[Record] = []
        with self._database.read() as session:
            key_id = session.exec(select(VaultRow.key_id)).one()
            # Not `!=`, for which no index is used.
            other = or_(col(AccountRow.key_id) < key_id, col(AccountRow.key_id) > key_id)
            accounts = select(AccountRow).where(other).limit(limit)
            found += [(AccountRow, row.id, envelope_of(row)) for row in session.exec(accounts)]
            providers = select(ProviderRow).where(ProviderRow.key_id != key_id).limit(limit - len(found))
            found += [(ProviderRow, row.slug, envelope_of(row)) for row in session.exec(providers)]
        return found

    def rewrap(self, records: list[Record]) -> int:
        """Wrap `records` with the present master key, except those that somebody changed meanwhile. Returns
        how many were. One that was tampered with is left as it is: it opens under no key. Raises
        `MasterKeyMissing`, `Unavailable`."""
        key_id, vault = self._database.key_id(), self._database.vault
        rewrapped = []
        for table, identifier, envelope in records:
            name = name_of(identifier) if table is AccountRow else name_of_provider(identifier)
            try:
                rewrapped.append((table, identifier, envelope, vault.rewrap(envelope, name, key_id)))
            except CredentialUnreadable:
                continue
        done = 0
        # Not `write`: no version is needed, and the lock is held for this alone.
        with Session(self._database.engine) as session, session.begin():
            for table, identifier, before, after in rewrapped:
                place = table.id if table is AccountRow else table.slug
                swap = update(table).where(col(place) == identifier)
                swap = swap.where(
                    col(table.key_id) == before.key_id, col(table.wrapped_key) == before.wrapped_key
                )
                values = {"key_id": after.key_id, "wrapped_key": after.wrapped_key}
                done += session.execute(swap.values(**values)).rowcount  # type: ignore[attr-defined]
        return done

    def retire(self) -> list[str]:
        """Forget the master keys that wrap nothing any longer. Returns their ids."""
        with self._database.write() as (session, _):
            key_id, counts = session.get_one(VaultRow, VAULT_ID).key_id, _counts(session)
            rows = [row for row in session.exec(select(MasterKeyRow)) if row.id not in {key_id, *counts}]
            for row in rows:
                session.delete(row)
            return [row.id for row in rows]


def was_sealed(engine: Engine) -> bool:
    """Whether the vault of that database has a master key already."""
    with Session(engine) as session:
        row = session.get_one(VaultRow, VAULT_ID)
        return bool(row.key_id) or row.check_value is not None


def unlock(engine: Engine, keys: list[MasterKey]) -> Vault:
    """The vault of that database, opened with `keys`; a new one is sealed with the first of them. Raises
    `BadSettings` that says which key is missing or wrong."""
    vault = Vault({key.id: key for key in keys})
    with Session(engine) as session, session.begin():
        session.execute(update(VaultRow).values(last_version=VaultRow.last_version))  # one replica at a time
        row = session.get_one(VaultRow, VAULT_ID)
        try:
            if not row.key_id:
                first = legacy.key_of(row.check_value, keys) if row.check_value else keys[0]
                row.key_id, row.check_value = first.id, None
                session.add(_check_row(vault, first.id))
                legacy.take_over(session, vault, first)
            for key_id in sorted({row.key_id, *_counts(session)}):
                _check(session, vault, key_id)
        except MasterKeyUnavailable as error:
            raise BadSettings(f"LOCKGATE_CREDENTIALS_MASTER_KEY: {error}") from None
    return vault


def _check_row(vault: Vault, key_id: str) -> MasterKeyRow:
    data_key = vault.new_data_key(_check_name(key_id), key_id)
    envelope = data_key.seal(_CHECK, _CHECK)
    return MasterKeyRow(id=key_id, wrapped_key=envelope.wrapped_key, box=envelope.box, used_since=iso(now()))


def _check(session: Session, vault: Vault, key_id: str) -> None:
    row = session.get(MasterKeyRow, key_id)
    if key_id not in vault.key_ids:
        since = f" since {row.used_since[:19]}Z" if row else ""
        raise BadSettings(
            "LOCKGATE_CREDENTIALS_MASTER_KEY: this is not the master key that the vault was sealed with, "
            f"which is {key_id}{since}. Start with the key that was in use, or restore its file. "
            "To go over to a new key, name it in LOCKGATE_CREDENTIALS_MORE_KEYS beside the old one"
        )
    try:
        known = row is not None and vault.open(envelope_of(row), _check_name(key_id), _CHECK) == _CHECK
    except (CredentialUnreadable, MasterKeyMissing):
        known = False
    if not known:
        raise BadSettings(
            f"LOCKGATE_CREDENTIALS_MASTER_KEY: {key_id} is not the master key any more that the vault was "
            "sealed with: it was made anew under the same name. Restore it"
        )


def _check_name(key_id: str) -> str:
    return f"master-key/{key_id}"


def _counts(session: Session) -> dict[str, int]:
    """How many records each master key wraps."""
    counts: dict[str, int] = {}
    for table in (AccountRow, ProviderRow):
        query = select(table.key_id, func.count()).group_by(col(table.key_id))
        for key_id, count in session.exec(query):
            counts[key_id] = counts.get(key_id, 0) + count
    return counts
