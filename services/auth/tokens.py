"""Making tokens. How they are checked stands in `libs.common.tokens`."""

import time

from joserfc import jwt

from libs.common.ids import new_id
from libs.common.tokens import ACCESS_TYPE, ALGORITHM, CONSOLE_AUDIENCE, CONSOLE_TYPE
from services.auth.domain import CONSOLE_LIFETIME, Issue, Session, User
from services.auth.keys import SigningKeys


class Mint:
    """Signs access tokens, good for `access_lifetime` seconds, and the console's cookie, as `issuer`."""

    def __init__(self, keys: SigningKeys, issuer: str, access_lifetime: int) -> None:
        self._keys, self._issuer, self.access_lifetime = keys, issuer, access_lifetime

    def access_token(self, issue: Issue, audience: str) -> str:
        """An access token (RFC 9068) for `audience`, which may be narrower than the grant's."""
        grant = issue.grant
        claims = {
            "sub": issue.user.id,
            "aud": audience,
            "client_id": grant.client_id,
            "client_name": grant.client_name,
            "grant": grant.id,
            "scope": grant.scope,
            "iat": issue.issued_at,
            "exp": issue.issued_at + self.access_lifetime,
        }
        return self._sign(ACCESS_TYPE, claims)

    def console_token(self, user: User, session: Session) -> str:
        """The console's cookie: who is signed in, for a quarter of an hour."""
        issued_at = user.issue_time(int(time.time()))
        claims = {
            "sub": user.id,
            "aud": CONSOLE_AUDIENCE,
            "grant": session.id,
            "iat": issued_at,
            "exp": min(issued_at + CONSOLE_LIFETIME, session.expires_at),
        }
        return self._sign(CONSOLE_TYPE, claims)

    def _sign(self, typ: str, claims: dict[str, object]) -> str:
        key = self._keys.signer
        header = {"alg": ALGORITHM, "typ": typ, "kid": str(key.kid)}
        return jwt.encode(header, {"iss": self._issuer, "jti": new_id(), **claims}, key)
