"""The authorization code grant with PKCE (RFC 7636), S256 only, bound to a resource (RFC 8707)."""

from typing import Any

from authlib.oauth2.rfc6749 import ClientMixin, InvalidGrantError, InvalidRequestError, OAuth2Error
from authlib.oauth2.rfc6749.grants import AuthorizationCodeGrant
from authlib.oauth2.rfc7636 import CodeChallenge

from libs.common.ids import new_id, new_secret
from services.auth.audit import auth_event, server_of
from services.auth.domain import AUTH_METHODS, CODE_LIFETIME, Code, Grant, Issue, User
from services.auth.keys import hash_of
from services.auth.oauth import redirects
from services.auth.oauth.errors import because
from services.auth.oauth.resources import audience_of, narrowed
from services.auth.oauth.server import OAuthRequest, RegisteredClient
from services.auth.store.database import unix_now
from services.auth.tokens import Mint


class RedeemableCode:
    """A code as Authlib wants to ask it."""

    code_challenge_method = "S256"

    def __init__(self, code: Code) -> None:
        self.code = code
        self.code_challenge = code.code_challenge

    def get_redirect_uri(self) -> str:
        return self.code.redirect_uri

    def get_scope(self) -> str:
        return self.code.scope


class RequiredChallenge(CodeChallenge):  # type: ignore[misc]
    """PKCE for every client. Authlib would take a request without a challenge, and `plain` by default."""

    DEFAULT_CODE_CHALLENGE_METHOD = "S256"
    SUPPORTED_CODE_CHALLENGE_METHOD = ["S256"]  # noqa: RUF012

    def validate_code_challenge(self, grant: Any, redirect_uri: str) -> None:
        data = grant.request.payload.data
        if not data.get("code_challenge"):
            missing = InvalidRequestError("Missing 'code_challenge': PKCE is required.")
            raise because("pkce_missing", missing)
        if data.get("code_challenge_method") != "S256":
            weak = InvalidRequestError("The 'code_challenge_method' has to be S256.")
            raise because("pkce_not_s256", weak)
        super().validate_code_challenge(grant, redirect_uri)

    def validate_code_verifier(self, grant: Any, result: object) -> None:
        try:
            super().validate_code_verifier(grant, result)
        except OAuth2Error as error:
            raise because("wrong_verifier", error) from error


class CodeGrant(AuthorizationCodeGrant):  # type: ignore[misc]
    TOKEN_ENDPOINT_AUTH_METHODS = AUTH_METHODS

    request: OAuthRequest

    # -- the authorization endpoint ---------------------------------------------------------------

    @staticmethod
    def validate_authorization_redirect_uri(request: OAuthRequest, client: ClientMixin) -> str:
        """As Authlib's, without repeating the URI, which may not be fit for an error description."""
        requested: str | None = request.payload.redirect_uri
        if requested and client.check_redirect_uri(requested):
            return requested
        default: str | None = client.get_default_redirect_uri()
        if requested or not default:
            foreign = InvalidRequestError("The redirect URI is not one that this client registered.")
            raise because("foreign_redirect_uri", foreign)
        return default

    def validate_authorization_request(self) -> str:
        redirect_uri: str = super().validate_authorization_request()
        try:
            self.audience = audience_of(self.request.payload.all("resource"), self.server.public_url)
        except OAuth2Error as error:
            error.redirect_uri = redirect_uri
            raise
        return redirect_uri

    def generate_authorization_code(self) -> str:
        return new_secret()

    def save_authorization_code(self, code: str, request: OAuthRequest) -> None:
        client, user = request.client.client, request.user
        redirect_uri = request.payload.redirect_uri or ""
        self.server.store.grants.add_code(
            Code(
                hash=hash_of(code),
                grant_id=new_id(),
                user_id=user.id,
                client_id=client.id,
                client_name=client.name,
                redirect_uri=redirect_uri,
                redirect_host=redirects.host_of(redirect_uri or client.redirect_uris[0]),
                audience=self.audience,
                scope=request.scope,
                code_challenge=request.payload.data["code_challenge"],
                expires_at=unix_now() + CODE_LIFETIME,
            )
        )
        request.outcome.events.append(
            auth_event(
                "consented",
                user=user,
                client=client,
                address=request.address,
                server=server_of(self.audience),
            )
        )

    # -- the token endpoint -----------------------------------------------------------------------

    def query_authorization_code(self, code: str, client: RegisteredClient) -> RedeemableCode | None:
        found = self.server.store.grants.find_code(hash_of(code))
        if found is None:
            return None
        if found.client_id == client.client.id and found.used_at is not None:
            self._revoke_reused(found)
            return None
        self.request.presented = grant_of(found)
        if found.client_id != client.client.id:
            raise because("wrong_client", InvalidGrantError("Invalid 'code' in request."))
        if found.redirect_uri and self.request.payload.redirect_uri != found.redirect_uri:
            raise because("wrong_redirect_uri", InvalidGrantError("Invalid 'redirect_uri' in request."))
        if found.expires_at < unix_now():
            raise because("code_expired", InvalidGrantError("Invalid 'code' in request."))
        return RedeemableCode(found)

    def authenticate_user(self, authorization_code: RedeemableCode) -> User:
        user: User = self.server.store.users.get(authorization_code.code.user_id)
        return user

    def create_token_response(self) -> tuple[int, dict[str, object], Any]:
        """Redeem the code and answer with tokens (RFC 6749, section 4.1.4)."""
        code, client = self.request.authorization_code.code, self.request.client.client
        audience = narrowed(self.request.payload.all("resource"), code.audience, self.server.public_url)
        refresh = new_secret() if "refresh_token" in client.grant_types else None
        issue = self.server.store.grants.redeem(code, hash_of(refresh) if refresh else None)
        if issue is None:
            self._revoke_reused(code)
            raise InvalidGrantError("The code was used before.")
        self.request.outcome.events.append(
            auth_event("granted", user=issue.user, grant=issue.grant, address=self.request.address)
        )
        token = token_answer(self.server.mint, issue, audience, refresh)
        return 200, token, self.TOKEN_RESPONSE_HEADER

    def _revoke_reused(self, code: Code) -> None:
        """A code that comes twice was seen by somebody else (RFC 9700, section 4.2.4)."""
        if self.server.store.grants.revoke(code.grant_id):
            self.request.outcome.revoked.append(code.grant_id)
            grant = self.server.store.grants.get(code.grant_id)
            event = auth_event(
                "code_reused", refused="code_reused", grant=grant, address=self.request.address
            )
            self.request.outcome.events.append(event)


def grant_of(code: Code) -> Grant:
    """The grant that `code` stands for, which there is once it is redeemed."""
    names = ("user_id", "client_id", "client_name", "redirect_host", "audience", "scope")
    now = unix_now()
    values = {name: getattr(code, name) for name in names}
    return Grant(id=code.grant_id, created_at=now, last_used_at=now, **values)


def token_answer(mint: Mint, issue: Issue, audience: str, refresh_token: str | None) -> dict[str, object]:
    """The body of a token response (RFC 6749, section 5.1) with an access token for `audience`."""
    answer: dict[str, object] = {
        "access_token": mint.access_token(issue, audience),
        "token_type": "Bearer",
        "expires_in": mint.access_lifetime,
        "scope": issue.grant.scope,
    }
    if refresh_token:
        answer["refresh_token"] = refresh_token
    return answer
