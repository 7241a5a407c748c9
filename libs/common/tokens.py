"""Verifying the tokens that auth signs, with the keys of the control log and nothing else.

Access tokens are JWTs by RFC 9068 (`typ: at+jwt`); the console's cookie is a JWT of its own type, so that
neither can pass for the other. Both are signed with ES256.
"""

import time
from dataclasses import dataclass
from typing import Any, Literal

from joserfc import jwt
from joserfc.errors import InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet

from libs.common.control.entries import Keys, User
from libs.common.control.tables import Tables

ALGORITHM = "ES256"
ACCESS_TYPE = "at+jwt"
CONSOLE_TYPE = "console+jwt"
CONSOLE_AUDIENCE = "console"
LEEWAY = 5  # seconds by which clocks may differ
CACHE_SIZE = 20_000  # verified tokens kept

Reason = Literal[
    "token_malformed",
    "token_expired",
    "token_wrong_audience",
    "token_wrong_issuer",
    "token_unknown_key",
    "token_revoked",
    "user_unknown",
    "user_inactive",
]


class InvalidToken(Exception):
    """The token does not admit its bearer; `reason` says why, for the record and not for the bearer."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason


@dataclass(frozen=True, slots=True)
class Claims:
    """What a verified token says. Times are Unix seconds."""

    subject: str
    grant: str  # the grant of an access token, the login session of a console token
    client_id: str
    client_name: str
    audience: tuple[str, ...]
    issued_at: int
    expires_at: int


class Verifier:
    """Checks signature, type, issuer, audience and time. Whether the user still may is `standing`."""

    def __init__(self, tables: Tables, issuer: str) -> None:
        self._tables, self._issuer = tables, issuer
        self._entry: Keys | None = None  # what `_keys` was made from
        self._keys: KeySet | None = None
        self._verified: dict[tuple[str, str], Claims] = {}

    def verify(self, token: str, *audiences: str, typ: str = ACCESS_TYPE) -> Claims:
        """The claims of `token`, which must be meant for one of `audiences`. Raises `InvalidToken`."""
        self._refresh_keys()
        claims = self._verified.get((typ, token))
        if claims is None:
            claims = self._decode(token, typ)
            if len(self._verified) >= CACHE_SIZE:
                del self._verified[next(iter(self._verified))]  # the oldest
            self._verified[typ, token] = claims
        if claims.expires_at + LEEWAY < time.time():
            raise InvalidToken("token_expired")
        if not any(audience in claims.audience for audience in audiences):
            raise InvalidToken("token_wrong_audience")
        return claims

    def _refresh_keys(self) -> None:
        entry = self._tables.keys
        if entry is not self._entry:
            self._verified.clear()
            self._keys = KeySet.import_key_set({"keys": entry.keys}) if entry else None
            self._entry = entry

    def _decode(self, token: str, typ: str) -> Claims:
        if self._keys is None:
            raise InvalidToken("token_unknown_key")
        try:
            decoded = jwt.decode(token, self._keys, algorithms=[ALGORITHM])
        except InvalidKeyIdError as error:
            raise InvalidToken("token_unknown_key") from error
        except (JoseError, ValueError) as error:
            raise InvalidToken("token_malformed") from error
        if decoded.header.get("typ") != typ:
            raise InvalidToken("token_malformed")
        if decoded.claims.get("iss") != self._issuer:
            raise InvalidToken("token_wrong_issuer")
        return _claims(decoded.claims)


def _claims(claims: dict[str, Any]) -> Claims:
    audience = claims.get("aud", ())
    try:
        return Claims(
            subject=str(claims["sub"]),
            grant=str(claims["grant"]),
            client_id=str(claims.get("client_id", "")),
            client_name=str(claims.get("client_name", "")),
            audience=(audience,) if isinstance(audience, str) else tuple(audience),
            issued_at=int(claims["iat"]),
            expires_at=int(claims["exp"]),
        )
    except (KeyError, ValueError, TypeError) as error:
        raise InvalidToken("token_malformed") from error


def standing(tables: Tables, claims: Claims) -> User:
    """The user of `claims`, if the control log lets the token stand now. Raises `InvalidToken`."""
    user = tables.users.get(claims.subject)
    if user is None:
        raise InvalidToken("user_unknown")
    if not user.active:
        raise InvalidToken("user_inactive")
    if claims.grant in tables.revoked or claims.issued_at < user.tokens_valid_from:
        raise InvalidToken("token_revoked")
    return user
