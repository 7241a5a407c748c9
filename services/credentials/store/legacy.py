"""Takes over what version 0.1 stored: one credential of the organization per server, under one master key.

It needs the master key, so it happens at the first start after the migration.
"""

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlmodel import Session, select

from libs.common.errors import BadRequest
from libs.common.ids import new_id
from libs.common.settings import BadSettings
from services.credentials.domain import Account, Owner, Provider, encode_values
from services.credentials.layout import BEARER, one_key
from services.credentials.masterkey.local import LocalKey
from services.credentials.masterkey.port import MasterKey
from services.credentials.store.providers import fill_provider, name_of_provider
from services.credentials.store.rows import fill, name_of
from services.credentials.tables import EarlierRow, ProviderRow
from services.credentials.vault import Vault

_NONCE, _HEAD = 12, 12 + 32 + 16  # bytes: `nonce ‖ wrapped data key ‖ nonce ‖ ciphertext`
_CHECK = b"lockgate vault check value"


def key_of(check_value: bytes, keys: list[MasterKey]) -> LocalKey:
    """The key with which the earlier vault was sealed. Raises `BadSettings` if it is not among `keys`."""
    for key in keys:
        if isinstance(key, LocalKey) and _open(key, check_value, _CHECK) == _CHECK:
            return key
    raise BadSettings(
        "LOCKGATE_CREDENTIALS_MASTER_KEY: this is not the master key that the vault was sealed with. "
        "Start with the key that was in use, or restore the file that held it"
    )


def take_over(session: Session, vault: Vault, key: MasterKey) -> None:
    """Make accounts of earlier credentials. What cannot be opened (somebody changed it) is left behind."""
    for row in session.exec(select(EarlierRow)):
        secret = _open(key, row.envelope, _identity(row)) if isinstance(key, LocalKey) else None
        if secret is not None:
            _convert(session, vault, key.id, row, secret.decode())
        session.delete(row)


def _convert(session: Session, vault: Vault, key_id: str, earlier: EarlierRow, secret: str) -> None:
    into, name = ("environment", earlier.environment) if earlier.environment else ("header", earlier.header)
    try:
        layout = one_key(into, name, earlier.template)  # type: ignore[arg-type]
    except BadRequest:
        return
    account = Account(
        id=new_id(), owner=Owner(earlier.slug, earlier.user_id), kind="api_key", origin=earlier.origin,
        version=earlier.version, sealed_version=earlier.version, created_at=earlier.changed_at,
        created_by=earlier.changed_by, changed_at=earlier.changed_at, changed_by=earlier.changed_by,
    )  # fmt: skip
    data_key = vault.new_data_key(name_of(account.id), key_id)
    session.add(fill(None, account, data_key.seal(encode_values({"key": secret}), account.identity())))
    if layout != BEARER and session.get(ProviderRow, earlier.slug) is None:
        provider = Provider(
            slug=earlier.slug, kind="api_key", layout=msgspec.json.encode(layout).decode(),
            version=earlier.version, changed_at=earlier.changed_at, changed_by=earlier.changed_by,
        )  # fmt: skip
        data_key = vault.new_data_key(name_of_provider(earlier.slug), key_id)
        session.add(fill_provider(None, provider, data_key.seal(b"", provider.identity())))


def _open(key: LocalKey, envelope: bytes, identity: bytes) -> bytes | None:
    outer, wrapped, rest = envelope[:_NONCE], envelope[_NONCE:_HEAD], envelope[_HEAD:]
    try:
        data_key = AESGCM(key.raw).decrypt(outer, wrapped, identity)
        return AESGCM(data_key).decrypt(rest[:_NONCE], rest[_NONCE:], identity)
    except (InvalidTag, ValueError):
        return None


def _identity(row: EarlierRow) -> bytes:
    parts = ["lockgate credential", row.slug, row.user_id, row.header, row.template, row.origin, row.version]
    return msgspec.json.encode([*parts, *([row.environment] if row.environment else [])])
