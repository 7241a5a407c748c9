"""The keys that sign tokens (ES256). Several may live at once: the newest signs, all verify."""

import asyncio
import base64
import hashlib
import hmac

from joserfc.jwk import ECKey

from libs.common.ids import new_secret
from libs.common.tokens import ALGORITHM
from services.auth.store import Store

_SUCCESSOR = "refresh-successor"


class SigningKeys:
    """Made at the first start, and loaded with `start`. `kid` is the JWK thumbprint (RFC 7638)."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._keys: list[ECKey] = []
        self._successor_secret = b""

    async def start(self) -> None:
        await asyncio.to_thread(self.load)

    async def stop(self) -> None:
        self._keys = []

    def load(self) -> None:
        """Read the keys; make the first one. For a thread."""
        keys = self._store.keys
        if not keys.live():
            key = ECKey.generate_key("P-256", {"use": "sig", "alg": ALGORITHM}, auto_kid=True)
            keys.add(str(key.kid), {name: str(value) for name, value in key.as_dict(private=True).items()})
        self._keys = [ECKey.import_key({**jwk}) for jwk in keys.live()]
        self._successor_secret = keys.shared_secret(_SUCCESSOR, new_secret()).encode()

    @property
    def signer(self) -> ECKey:
        """The key to sign with now."""
        return self._keys[-1]

    def public(self) -> list[dict[str, str]]:
        """The public parts, as they stand in the JWKS and in the control log."""
        return [
            {name: str(value) for name, value in sorted(key.as_dict(private=False).items())}
            for key in self._keys
        ]

    def successor(self, refresh_token: str) -> str:
        """The refresh token that follows `refresh_token`. The same one each time it is asked for, so that a
        repeated refresh can be answered alike although only hashes are stored."""
        digest = hmac.digest(self._successor_secret, refresh_token.encode(), hashlib.sha256)
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def hash_of(secret: str) -> str:
    """How a code, refresh token, cookie or client secret is stored. All are random: no salt is needed."""
    return hashlib.sha256(secret.encode()).hexdigest()
