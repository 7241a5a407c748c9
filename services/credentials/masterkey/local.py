"""A master key in the memory of this process."""

import base64
import hashlib
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from services.credentials.masterkey.port import NotWrappedHere

KEY_SIZE = 32  # bytes
_NONCE = 12


class LocalKey:
    """AES-256-GCM with random nonces, good for 2³² data keys (NIST SP 800-38D, section 8.3)."""

    def __init__(self, key: bytes) -> None:
        # A digest of a random key tells nothing about it.
        self.id = f"local:{hashlib.sha256(b'lockgate master key id' + key).hexdigest()[:16]}"
        self.raw = key
        self._cipher = AESGCM(key)

    def __repr__(self) -> str:
        return f"LocalKey({self.id!r})"

    def wrap(self, data_key: bytes, name: bytes) -> bytes:
        nonce = secrets.token_bytes(_NONCE)
        return nonce + self._cipher.encrypt(nonce, data_key, name)

    def unwrap(self, wrapped: bytes, name: bytes) -> bytes:
        try:
            return self._cipher.decrypt(wrapped[:_NONCE], wrapped[_NONCE:], name)
        except (InvalidTag, ValueError):
            raise NotWrappedHere from None


def decode(text: str) -> bytes:
    """The key in `text`. Raises `ValueError` that says what is wrong, and does not repeat it."""
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except ValueError:
        raise ValueError("must be Base64 (openssl rand -base64 32 makes a key)") from None
    if len(key) != KEY_SIZE:
        raise ValueError(
            f"has {len(key)} bytes; it must have {KEY_SIZE} (openssl rand -base64 32 makes a key)"
        )
    return key
