"""Sealed boxes: a secret that crosses the bus can be opened only by the one who asked for it.

X25519 (RFC 7748) between the asker's ephemeral key and one of the sealer, HKDF-SHA256 (RFC 5869) over the
shared secret bound to both public keys, AES-256-GCM with `context` as associated data. Each key pair of the
sealer is used once, so a fixed nonce is safe.
"""

import base64

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

_KEY_SIZE = 32
_NONCE = bytes(12)


class NotForUs(Exception):
    """The box was sealed for somebody else, for another purpose, or was changed on the way."""


class Opener:
    """The asker's side: an ephemeral key pair. Send `public_key`, then `open` the answers."""

    def __init__(self) -> None:
        self._private = X25519PrivateKey.generate()
        self._public = self._private.public_key().public_bytes_raw()

    @property
    def public_key(self) -> str:
        return base64.b64encode(self._public).decode()

    def open(self, box: str, context: str) -> bytes:
        """The secret in `box`. `context` says what was asked for. Raises `NotForUs`."""
        try:
            raw = base64.b64decode(box, validate=True)
            sender, ciphertext = raw[:_KEY_SIZE], raw[_KEY_SIZE:]
            shared = self._private.exchange(X25519PublicKey.from_public_bytes(sender))
            key = _derive(shared, sender, self._public)
            return AESGCM(key).decrypt(_NONCE, ciphertext, context.encode())
        except (ValueError, InvalidTag) as error:
            raise NotForUs from error


def seal(secret: bytes, public_key: str, context: str) -> str:
    """`secret` sealed to the asker's `public_key`. Raises `ValueError` for a key that is none."""
    recipient = base64.b64decode(public_key, validate=True)
    ephemeral = X25519PrivateKey.generate()
    sender = ephemeral.public_key().public_bytes_raw()
    shared = ephemeral.exchange(X25519PublicKey.from_public_bytes(recipient))
    ciphertext = AESGCM(_derive(shared, sender, recipient)).encrypt(_NONCE, secret, context.encode())
    return base64.b64encode(sender + ciphertext).decode()


def _derive(shared: bytes, sender: bytes, recipient: bytes) -> bytes:
    info = b"lockgate sealed box v1" + sender + recipient
    return HKDF(SHA256(), length=32, salt=None, info=info).derive(shared)
