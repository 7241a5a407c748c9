"""How the secrets of authenticator apps are stored: AES-256-GCM, bound to their user.

The key lies in the same database, beside the private keys that sign tokens. So this protects against a leak
of the table alone (an excerpt, a log of queries, an injection into one query) and against moving a secret
from one person to another, but not against who has the whole database: that has to be kept as a secret
itself.
"""

import asyncio
import base64
import hashlib
import os

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from libs.common.ids import new_secret
from services.auth.store import Store

_KEY = "totp-sealing"
_NONCE = 12  # bytes


class Sealing:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._cipher: AESGCM | None = None

    async def start(self) -> None:
        secret = await asyncio.to_thread(self._store.keys.shared_secret, _KEY, new_secret())
        self._cipher = AESGCM(hashlib.sha256(secret.encode()).digest())

    async def stop(self) -> None:
        self._cipher = None

    def seal(self, secret: str, user_id: str) -> str:
        assert self._cipher, "not started"
        nonce = os.urandom(_NONCE)
        return base64.b64encode(
            nonce + self._cipher.encrypt(nonce, secret.encode(), user_id.encode())
        ).decode()

    def open(self, sealed: str, user_id: str) -> str:
        """Raises `cryptography.exceptions.InvalidTag` for what was not sealed here for this user."""
        assert self._cipher, "not started"
        raw = base64.b64decode(sealed)
        return self._cipher.decrypt(raw[:_NONCE], raw[_NONCE:], user_id.encode()).decode()
