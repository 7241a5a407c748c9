"""Introspection (RFC 7662): what a token is worth now, for the organization's own services.

It may be asked by clients that an administrator made for a service and gave the right `introspect`, and by
nobody else: anybody may register a client, and a stolen token should not be told about.
"""

from dataclasses import dataclass
from typing import Any

from authlib.oauth2.rfc6749 import InvalidRequestError
from authlib.oauth2.rfc6749.errors import UnauthorizedClientError
from authlib.oauth2.rfc7662 import IntrospectionEndpoint
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from libs.common.tokens import ACCESS_TYPE, ALGORITHM
from services.auth.domain import AuthMethod, Grant, User
from services.auth.keys import hash_of
from services.auth.oauth.server import OAuthRequest, RegisteredClient
from services.auth.store.database import unix_now

INTROSPECTION_AUTH_METHODS: list[AuthMethod] = ["client_secret_basic", "client_secret_post"]


@dataclass(frozen=True, slots=True)
class LiveToken:
    """A token that is worth something, as Authlib wants to ask it; `claims` are what is told of it."""

    claims: dict[str, Any]

    def is_expired(self) -> bool:
        return False

    def is_revoked(self) -> bool:
        return False


class Introspection(IntrospectionEndpoint):  # type: ignore[misc]
    CLIENT_AUTH_METHODS = INTROSPECTION_AUTH_METHODS

    def authenticate_endpoint_client(self, request: OAuthRequest) -> RegisteredClient:
        client: RegisteredClient = super().authenticate_endpoint_client(request)
        if "introspect" not in client.client.rights.split():
            raise UnauthorizedClientError("This client may not introspect tokens.", status_code=403)
        return client

    def check_params(self, request: OAuthRequest, client: RegisteredClient) -> None:
        """Only the token matters; a hint of a kind unknown to us is ignored (section 2.1)."""
        if "token" not in request.form:
            raise InvalidRequestError("Missing 'token' in request.")

    def check_permission(self, token: LiveToken, client: RegisteredClient, request: OAuthRequest) -> bool:
        """Who may introspect may introspect any token."""
        return True

    def query_token(self, token_string: str, token_type_hint: str | None) -> LiveToken | None:
        claims = self._refresh_token(token_string) or self._access_token(token_string)
        return LiveToken(claims) if claims else None

    def introspect_token(self, token: LiveToken) -> dict[str, Any]:
        return {"active": True, "iss": self.server.public_url, **token.claims}

    def _refresh_token(self, token: str) -> dict[str, Any] | None:
        found = self.server.store.grants.find_refresh_token(hash_of(token))
        if found is None or found.expires_at < unix_now() or found.replaced_at is not None:
            return None
        standing = self.server.store.grants.standing(found.grant.id)
        return {**_of(*standing), "exp": found.expires_at} if standing else None

    def _access_token(self, token: str) -> dict[str, Any] | None:
        keys = KeySet.import_key_set({"keys": self.server.keys.public()})
        try:
            decoded = jwt.decode(token, keys, algorithms=[ALGORITHM])
        except (JoseError, ValueError):
            return None
        claims = decoded.claims
        if decoded.header.get("typ") != ACCESS_TYPE or claims["exp"] < unix_now():
            return None
        standing = self.server.store.grants.standing(claims["grant"])
        if standing is None or claims["iat"] < standing[1].tokens_valid_from:
            return None
        own = {name: claims[name] for name in ("aud", "iat", "exp", "jti")}
        return {**_of(*standing), **own, "token_type": "Bearer"}


def _of(grant: Grant, user: User) -> dict[str, Any]:
    return {
        "sub": user.id,
        "username": user.email,
        "client_id": grant.client_id,
        "scope": grant.scope,
        "aud": grant.audience,
    }
