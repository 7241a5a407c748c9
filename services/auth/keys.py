"""The keys that sign tokens (ES256), replaced on schedule (`services.auth.rotation`).

Several live at once: the newest that has been public for long enough signs, all verify. Which one that is
follows from the database and the clock alone, so that all replicas of this service agree.
"""

import asyncio
import base64
import hashlib
import hmac

from joserfc.jwk import ECKey

from libs.common.ids import new_secret
from libs.common.tokens import ALGORITHM
from services.auth.domain import SigningKey
from services.auth.store import Store
from services.auth.store.database import unix_now

_SUCCESSOR = "refresh-successor"


class SigningKeys:
    """Made at the first start, and loaded with `start`. `kid` is the JWK thumbprint (RFC 7638)."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._keys: list[tuple[SigningKey, ECKey]] = []
        self._successor_secret = b""

    async def start(self) -> None:
        await asyncio.to_thread(self.load)

    async def stop(self) -> None:
        self._keys = []

    def load(self) -> None:
        """Read the keys; make the first one. For a thread."""
        if not self._store.keys.live():
            self.make(1)
        self._keys = [(key, ECKey.import_key({**key.jwk})) for key in self._store.keys.live()]
        self._successor_secret = self._store.keys.shared_secret(_SUCCESSOR, new_secret()).encode()

    def make(self, number: int) -> bool:
        """Make the `number`th key. False if another replica was first. For a thread."""
        key = ECKey.generate_key("P-256", {"use": "sig", "alg": ALGORITHM}, auto_kid=True)
        jwk = {name: str(value) for name, value in key.as_dict(private=True).items()}
        return self._store.keys.add(number, str(key.kid), jwk)

    @property
    def signer(self) -> ECKey:
        """The key to sign with now: before any has been public for long enough, the oldest."""
        now, keys = unix_now(), self._keys
        return next((pair for key, pair in reversed(keys) if key.signs(now)), keys[0][1])

    def public(self) -> list[dict[str, str]]:
        """The public parts, as they stand in the JWKS and in the control log."""
        return [
            {name: str(value) for name, value in sorted(pair.as_dict(private=False).items())}
            for _, pair in self._keys
        ]

    def successor(self, refresh_token: str) -> str:
        """The refresh token that follows `refresh_token`. The same one each time it is asked for, so that a
        repeated refresh can be answered alike although only hashes are stored."""
        digest = hmac.digest(self._successor_secret, refresh_token.encode(), hashlib.sha256)
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def hash_of(secret: str) -> str:
    """How a code, refresh token, cookie or client secret is stored. All are random: no salt is needed."""
    return hashlib.sha256(secret.encode()).hexdigest()
