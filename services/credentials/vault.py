"""Envelope encryption: AES-256-GCM (NIST SP 800-38D) with a data key per record, wrapped by a master key.

The wrapped key is bound to the record's name, which never changes; the box is bound to the record's identity
too, so that it opens only in the row, for the owner, at the version and for the origin for which it was made.
Each data key encrypts once.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from libs.common.errors import Unavailable
from services.credentials.domain import CredentialUnreadable
from services.credentials.masterkey.port import MasterKey, NotWrappedHere

_NONCE = 12  # bytes
_DATA_KEY = 32


class MasterKeyMissing(Unavailable):
    type, title = "master-key-missing", "A master key of the vault is not configured here"


@dataclass(frozen=True, slots=True)
class Envelope:
    """A sealed secret: `wrapped_key` opens with the master key `key_id`, `box` with what is in it."""

    key_id: str
    wrapped_key: bytes
    box: bytes = b""


@dataclass(frozen=True, slots=True)
class DataKey:
    """A new data key and how it is wrapped. It is good for sealing once, without asking anybody again."""

    key_id: str
    wrapped_key: bytes
    plain: bytes = field(repr=False)

    def seal(self, secret: bytes, identity: bytes) -> Envelope:
        """The envelope of `secret` in the record of that identity."""
        nonce = secrets.token_bytes(_NONCE)
        box = nonce + AESGCM(self.plain).encrypt(nonce, secret, identity)
        return Envelope(self.key_id, self.wrapped_key, box)


class Vault:
    """Seals and opens with the master keys that it was given, by id. A master key in a KMS makes each method
    a request over the network: call them from a thread, and outside of transactions."""

    def __init__(self, keys: Mapping[str, MasterKey]) -> None:
        self._keys = dict(keys)

    @property
    def key_ids(self) -> list[str]:
        return list(self._keys)

    def new_data_key(self, name: str, key_id: str) -> DataKey:
        """A data key for the record `name`. Raises `MasterKeyMissing`, `Unavailable`."""
        plain = secrets.token_bytes(_DATA_KEY)
        return DataKey(key_id, self._master(key_id).wrap(plain, name.encode()), plain)

    def open(self, envelope: Envelope, name: str, identity: bytes) -> bytes:
        """The secret in the `envelope` of that record. Raises `CredentialUnreadable`, `MasterKeyMissing`, and
        `Unavailable` when a KMS does not answer."""
        try:
            plain = self._master(envelope.key_id).unwrap(envelope.wrapped_key, name.encode())
            return AESGCM(plain).decrypt(envelope.box[:_NONCE], envelope.box[_NONCE:], identity)
        except (NotWrappedHere, InvalidTag, ValueError):
            raise CredentialUnreadable(
                "It was changed or moved in the database. Store it anew, or connect again."
            ) from None

    def rewrap(self, envelope: Envelope, name: str, key_id: str) -> Envelope:
        """The same envelope under another master key; what is in the box stays as it is. Raises as `open`."""
        try:
            plain = self._master(envelope.key_id).unwrap(envelope.wrapped_key, name.encode())
        except NotWrappedHere:
            raise CredentialUnreadable(f"{name} was changed or moved in the database.") from None
        return Envelope(key_id, self._master(key_id).wrap(plain, name.encode()), envelope.box)

    def _master(self, key_id: str) -> MasterKey:
        if key_id not in self._keys:
            raise MasterKeyMissing(
                f"The master key {key_id} is not configured at this process; "
                "name it in LOCKGATE_CREDENTIALS_MORE_KEYS."
            )
        return self._keys[key_id]
