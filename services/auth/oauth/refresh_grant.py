"""Refreshing, with rotation.

A refresh token is replaced by its successor when it is used. Who repeats the request within a short window
(a lost answer, a second process) gets that same successor again. Who comes later holds a copy: the whole
grant is revoked (RFC 9700, section 4.14.2).
"""

from typing import Any

from authlib.oauth2.rfc6749 import InvalidGrantError
from authlib.oauth2.rfc6749.grants import RefreshTokenGrant

from services.auth.audit import auth_event
from services.auth.domain import AUTH_METHODS, RefreshToken
from services.auth.keys import hash_of
from services.auth.oauth.code_grant import token_answer
from services.auth.oauth.errors import because
from services.auth.oauth.resources import narrowed
from services.auth.oauth.server import OAuthRequest, RegisteredClient
from services.auth.store.database import unix_now


class UsableRefreshToken:
    """A refresh token as Authlib wants to ask it."""

    def __init__(self, token: RefreshToken) -> None:
        self.token = token

    def check_client(self, client: RegisteredClient) -> bool:
        return self.token.grant.client_id == client.client.id

    def get_scope(self) -> str:
        return self.token.grant.scope


class RefreshGrant(RefreshTokenGrant):  # type: ignore[misc]
    TOKEN_ENDPOINT_AUTH_METHODS = AUTH_METHODS

    request: OAuthRequest

    def authenticate_refresh_token(self, refresh_token: str) -> UsableRefreshToken | None:
        token = self.server.store.grants.find_refresh_token(hash_of(refresh_token))
        if token is None:
            return None
        self.request.presented = token.grant
        if token.expires_at < unix_now():
            raise because("token_expired", InvalidGrantError())
        if token.grant.revoked_at is not None:
            raise because("grant_ended", InvalidGrantError())
        if token.grant.client_id != self.request.client.client.id:
            raise because("wrong_client", InvalidGrantError())
        return UsableRefreshToken(token)

    def _validate_token_scope(self, token: UsableRefreshToken) -> None:
        """A refreshed token has the scope of its grant, whatever is asked for: never more, and nothing here
        is decided by scope, so that a client that repeats its wish list is not turned away for it."""

    def create_token_response(self) -> tuple[int, dict[str, object], Any]:
        token: RefreshToken = self.request.refresh_token.token
        audience = narrowed(
            self.request.payload.all("resource"), token.grant.audience, self.server.public_url
        )
        successor = self.server.keys.successor(self.request.form["refresh_token"])
        issue = self.server.store.grants.rotate(token, hash_of(successor))
        if issue is None:
            self._revoke_reused(token)
            raise InvalidGrantError("The refresh token was used before, or its grant has ended.")
        self.request.outcome.events.append(
            auth_event("refreshed", user=issue.user, grant=issue.grant, address=self.request.address)
        )
        return 200, token_answer(self.server.mint, issue, audience, successor), self.TOKEN_RESPONSE_HEADER

    def _revoke_reused(self, token: RefreshToken) -> None:
        if self.server.store.grants.revoke(token.grant.id):
            self.request.outcome.revoked.append(token.grant.id)
            event = auth_event(
                "refresh_reused", refused="refresh_reused", grant=token.grant, address=self.request.address
            )
            self.request.outcome.events.append(event)
