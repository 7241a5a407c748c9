"""Revocation by the client (RFC 7009). Any token of a grant ends the whole grant."""

from dataclasses import dataclass

from authlib.oauth2.rfc6749 import InvalidRequestError
from authlib.oauth2.rfc7009 import RevocationEndpoint
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from libs.common.tokens import ACCESS_TYPE, ALGORITHM
from services.auth.audit import auth_event
from services.auth.domain import AUTH_METHODS, Grant, UnknownGrant
from services.auth.keys import hash_of
from services.auth.oauth.server import OAuthRequest, RegisteredClient


@dataclass(frozen=True, slots=True)
class RevocableToken:
    """A token as Authlib wants to ask it."""

    grant: Grant

    def check_client(self, client: RegisteredClient) -> bool:
        return self.grant.client_id == client.client.id


class Revocation(RevocationEndpoint):  # type: ignore[misc]
    CLIENT_AUTH_METHODS = AUTH_METHODS

    def check_params(self, request: OAuthRequest, client: RegisteredClient) -> None:
        """Only the token matters; a hint of a kind unknown to us is ignored (RFC 7009, section 2.1)."""
        if "token" not in request.form:
            raise InvalidRequestError("Missing 'token' in request.")

    def query_token(self, token_string: str, token_type_hint: str | None) -> RevocableToken | None:
        found = self.server.store.grants.find_refresh_token(hash_of(token_string))
        grant = found.grant if found else self._grant_of_access_token(token_string)
        return RevocableToken(grant) if grant else None

    def revoke_token(self, token: RevocableToken, request: OAuthRequest) -> None:
        # Published again even if it was revoked before: the caller is told that it holds everywhere.
        request.outcome.revoked.append(token.grant.id)
        if self.server.store.grants.revoke(token.grant.id):
            request.outcome.events.append(
                auth_event("revoked", grant=token.grant, address=request.address, detail="by the client")
            )

    def _grant_of_access_token(self, token: str) -> Grant | None:
        """The grant of an access token of ours, expired or not."""
        keys = KeySet.import_key_set({"keys": self.server.keys.public()})
        try:
            decoded = jwt.decode(token, keys, algorithms=[ALGORITHM])
            if decoded.header.get("typ") != ACCESS_TYPE:
                return None
            grant: Grant = self.server.store.grants.get(str(decoded.claims.get("grant")))
            return grant
        except (JoseError, ValueError, UnknownGrant):
            return None
