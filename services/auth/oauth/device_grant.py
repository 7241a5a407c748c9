"""The device authorization grant (RFC 8628), for clients that cannot open a browser."""

from typing import Any

from authlib.oauth2.rfc6749 import InvalidGrantError, InvalidRequestError
from authlib.oauth2.rfc6749.errors import AccessDeniedError, UnauthorizedClientError
from authlib.oauth2.rfc8628 import DEVICE_CODE_GRANT_TYPE, DeviceAuthorizationEndpoint, DeviceCodeGrant
from authlib.oauth2.rfc8628.endpoint import create_string_user_code
from authlib.oauth2.rfc8628.errors import AuthorizationPendingError, ExpiredTokenError, SlowDownError

from libs.common.ids import new_id, new_secret
from services.auth.audit import auth_event
from services.auth.domain import AUTH_METHODS, Code, DeviceCode, User
from services.auth.keys import hash_of
from services.auth.oauth.code_grant import token_answer
from services.auth.oauth.resources import audience_of, narrowed
from services.auth.oauth.server import OAuthRequest
from services.auth.store.database import unix_now

LIFETIME = 600  # seconds in which the person has to answer
INTERVAL = 5  # seconds between two polls


def device_hash(device_code: str) -> str:
    """How a device code is stored: so that it cannot pass for an authorization code."""
    return hash_of(f"device {device_code}")


def normal_user_code(typed: str) -> str:
    """A user code as it is stored, however it was typed (section 6.1)."""
    letters = "".join(c for c in typed.upper() if c.isalnum())[:16]
    return f"{letters[:4]}-{letters[4:]}"


class DeviceAuthorization(DeviceAuthorizationEndpoint):  # type: ignore[misc]
    """The endpoint at which a client begins."""

    CLIENT_AUTH_METHODS = AUTH_METHODS
    EXPIRES_IN = LIFETIME
    INTERVAL = INTERVAL

    def create_endpoint_response(self, request: OAuthRequest) -> tuple[int, dict[str, Any], Any]:
        client = self.authenticate_client(request)
        if not client.check_grant_type(DEVICE_CODE_GRANT_TYPE):
            raise UnauthorizedClientError("The client did not register this grant type.")
        device_code, user_code = new_secret(), create_string_user_code()
        self.server.store.device_codes.add(
            DeviceCode(
                hash=device_hash(device_code),
                user_code=user_code,
                client_id=client.client.id,
                client_name=client.client.name,
                audience=audience_of(request.payload.all("resource"), self.server.public_url),
                scope=client.get_allowed_scope(request.payload.scope),
                expires_at=unix_now() + LIFETIME,
                polled_at=0,
                interval=INTERVAL,
                decision="",
            )
        )
        page = f"{self.server.public_url}/oauth/device"
        answer = {
            "device_code": device_code,
            "user_code": user_code,
            "verification_uri": page,
            "verification_uri_complete": f"{page}?user_code={user_code}",
            "expires_in": LIFETIME,
            "interval": INTERVAL,
        }
        return 200, answer, {}


class DeviceGrant(DeviceCodeGrant):  # type: ignore[misc]
    """The token request with which the client polls."""

    TOKEN_ENDPOINT_AUTH_METHODS = AUTH_METHODS

    request: OAuthRequest

    def validate_token_request(self) -> None:
        device_code = self.request.form.get("device_code")
        if not device_code:
            raise InvalidRequestError("Missing 'device_code' in request.")
        client = self.authenticate_token_endpoint_client()
        if not client.check_grant_type(self.GRANT_TYPE):
            raise UnauthorizedClientError("The client did not register this grant type.")
        polled = self.server.store.device_codes.poll(device_hash(device_code))
        if polled is None or polled.code.client_id != client.client.id:
            raise InvalidGrantError("There is no such device code.")
        if polled.code.decision == "denied":
            raise AccessDeniedError()
        if polled.code.expires_at < unix_now():
            raise ExpiredTokenError()
        if not polled.code.decision:
            raise SlowDownError() if polled.too_early else AuthorizationPendingError()
        self.request.client = client

    def create_token_response(self) -> tuple[int, dict[str, object], Any]:
        code = self.server.store.grants.find_code(device_hash(self.request.form["device_code"]))
        client = self.request.client.client
        refresh = new_secret() if "refresh_token" in client.grant_types else None
        issue = code and self.server.store.grants.redeem(code, hash_of(refresh) if refresh else None)
        if issue is None:
            raise InvalidGrantError("The device code was used before.")
        audience = narrowed(self.request.payload.all("resource"), code.audience, self.server.public_url)
        self.request.outcome.events.append(
            auth_event("granted", user=issue.user, grant=issue.grant, address=self.request.address)
        )
        token = token_answer(self.server.mint, issue, audience, refresh)
        return 200, token, self.TOKEN_RESPONSE_HEADER


def allowed_by(user: User, code: DeviceCode) -> Code:
    """What the client may redeem once `user` has allowed it."""
    return Code(
        hash=code.hash,
        grant_id=new_id(),
        user_id=user.id,
        client_id=code.client_id,
        client_name=code.client_name,
        redirect_uri="",
        redirect_host="",
        audience=code.audience,
        scope=code.scope,
        code_challenge="",
        expires_at=code.expires_at,
    )
