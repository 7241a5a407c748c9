"""Envelope encryption: AES-256-GCM (NIST SP 800-38D) with a data key per record, wrapped by the master key.

Both layers carry the record's identity as associated data, so that a ciphertext opens only in the row, at the
version, with the placement and the origin for which it was made. Each data key encrypts once. An envelope is
`nonce ‖ wrapped data key ‖ nonce ‖ ciphertext`.
"""

import secrets

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from services.credentials.domain import Credential, CredentialUnreadable, Secret

_NONCE = 12  # bytes
_TAG = 16
_DATA_KEY = 32
_HEAD = _NONCE + _DATA_KEY + _TAG
_CHECK = b"lockgate vault check value"


class Vault:
    """Seals and opens with one master key of 32 bytes."""

    def __init__(self, master_key: bytes) -> None:
        self._master = AESGCM(master_key)

    def seal(self, key: str, credential: Credential) -> bytes:
        """The envelope for `key` in that record."""
        return self._seal(key.encode(), _identity(credential))

    def open(self, envelope: bytes, credential: Credential) -> Secret:
        """The secret in the `envelope` of that record. Raises `CredentialUnreadable`."""
        try:
            key = self._open(envelope, _identity(credential))
        except (InvalidTag, ValueError):
            raise CredentialUnreadable(
                f"The credential for {credential.owner.slug} was changed or moved in the database; "
                "store it anew."
            ) from None
        return Secret(credential.placement, key.decode())

    def seal_check(self) -> bytes:
        """A value by which `knows` recognizes this master key later."""
        return self._seal(_CHECK, _CHECK)

    def knows(self, check: bytes) -> bool:
        """Whether `check` was sealed with this master key."""
        try:
            return self._open(check, _CHECK) == _CHECK
        except (InvalidTag, ValueError):
            return False

    def _seal(self, plaintext: bytes, identity: bytes) -> bytes:
        data_key = secrets.token_bytes(_DATA_KEY)
        outer, inner = secrets.token_bytes(_NONCE), secrets.token_bytes(_NONCE)
        wrapped = self._master.encrypt(outer, data_key, identity)
        return outer + wrapped + inner + AESGCM(data_key).encrypt(inner, plaintext, identity)

    def _open(self, envelope: bytes, identity: bytes) -> bytes:
        outer, wrapped, rest = envelope[:_NONCE], envelope[_NONCE:_HEAD], envelope[_HEAD:]
        data_key = self._master.decrypt(outer, wrapped, identity)
        return AESGCM(data_key).decrypt(rest[:_NONCE], rest[_NONCE:], identity)


def _identity(credential: Credential) -> bytes:
    """The record that an envelope belongs to, unambiguously."""
    owner, placement = credential.owner, credential.placement
    parts = [
        *("lockgate credential", owner.slug, owner.user),
        *(placement.header, placement.template, credential.origin, credential.version),
    ]
    if placement.environment:  # else as it was before there were any
        parts.append(placement.environment)
    return msgspec.json.encode(parts)
