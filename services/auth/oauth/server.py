"""Authlib's authorization server, which is synchronous, behind a request made from Starlette's.

`OAuthRequest` carries what the endpoint read, goes through Authlib in a thread, and comes back with what
has to be done afterwards in the event loop: revocations to publish, events to record.
"""

import hmac
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from authlib.oauth2.rfc6749 import (
    AuthorizationServer,
    ClientMixin,
    InvalidRequestError,
    OAuth2Error,
    OAuth2Payload,
    OAuth2Request,
)
from authlib.oauth2.rfc6749.errors import UnsupportedResponseTypeError

from libs.common.records import AuthEvent
from services.auth.audit import auth_event
from services.auth.domain import Client, Grant
from services.auth.keys import SigningKeys, hash_of
from services.auth.oauth import redirects
from services.auth.oauth.errors import reason_of
from services.auth.store import Store
from services.auth.tokens import Mint

SCOPES = ("mcp", "offline_access")
DEFAULT_SCOPE = "mcp"


class Parameters(OAuth2Payload):  # type: ignore[misc]
    """The parameters of a request, each name with all its values. An empty value counts as absent."""

    def __init__(self, items: Iterable[tuple[str, str]]) -> None:
        self._values: defaultdict[str, list[str]] = defaultdict(list)
        for name, value in items:
            if value:
                self._values[name].append(value)

    @property
    def data(self) -> dict[str, str]:
        return {name: values[-1] for name, values in self._values.items()}

    @property
    def datalist(self) -> defaultdict[str, list[str]]:
        return self._values

    def all(self, name: str) -> list[str]:
        return list(self._values.get(name, ()))


@dataclass
class Outcome:
    """What a request brought about beside its answer: grants that ended, events for the record."""

    revoked: list[str] = field(default_factory=list)
    events: list[AuthEvent] = field(default_factory=list)
    refusals: list[AuthEvent] = field(default_factory=list)  # which can be brought about again and again


class OAuthRequest(OAuth2Request):  # type: ignore[misc]
    """A request to the authorization, token or revocation endpoint, from `address`."""

    def __init__(
        self, method: str, items: Iterable[tuple[str, str]], headers: Mapping[str, str], address: str
    ) -> None:
        # Authlib refuses plain HTTP by the URI. Whether TLS is needed, and where it ends, is the operator's
        # decision (LOCKGATE_PUBLIC_URL); what reaches us is plain HTTP behind any ingress.
        super().__init__(method, "https://lockgate.invalid/oauth", headers=headers)
        self.payload = Parameters(items)
        self.address = address
        self.outcome = Outcome()
        self.presented: Grant | None = None  # what the code or token stands for, once one has been shown

    @property
    def args(self) -> dict[str, str]:
        return self.form

    @property
    def form(self) -> dict[str, str]:
        data: dict[str, str] = self.payload.data
        return data


@dataclass(frozen=True, slots=True)
class Reply:
    """What Authlib answers. `body` is a JSON object, or empty for a redirect."""

    status: int
    body: dict[str, Any] | str
    headers: dict[str, str]


class RegisteredClient(ClientMixin):  # type: ignore[misc]
    """A client as Authlib wants to ask it."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def get_client_id(self) -> str:
        return self.client.id

    def get_default_redirect_uri(self) -> str | None:
        uris = self.client.redirect_uris
        return uris[0] if len(uris) == 1 else None

    def get_allowed_scope(self, scope: str | None) -> str:
        """What of `scope` there is. Names of other servers' scopes do no harm and are left out."""
        wanted = (scope or "").split()
        return " ".join(name for name in SCOPES if name in wanted or name == DEFAULT_SCOPE)

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return any(redirects.matches(uri, redirect_uri) for uri in self.client.redirect_uris)

    def check_client_secret(self, client_secret: str) -> bool:
        return hmac.compare_digest(self.client.secret_hash, hash_of(client_secret))

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:
        """A client with a secret may send it either way; one without must not send any."""
        return (method == "none") == self.client.public

    def check_response_type(self, response_type: str) -> bool:
        return response_type == "code"

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type in self.client.grant_types


class Server(AuthorizationServer):  # type: ignore[misc]
    """The adapter, and what its grants work with."""

    def __init__(self, store: Store, keys: SigningKeys, mint: Mint, public_url: str) -> None:
        super().__init__()
        self.store, self.keys, self.mint, self.public_url = store, keys, mint, public_url

    def query_client(self, client_id: str) -> RegisteredClient | None:
        client = self.store.clients.get(client_id)
        return RegisteredClient(client) if client else None

    def create_oauth2_request(self, request: OAuthRequest) -> OAuthRequest:
        return request

    def handle_response(self, status: int, body: dict[str, Any] | str, headers: Any) -> Reply:
        return Reply(status, body, dict(headers))

    def handle_error_response(self, request: OAuthRequest | None, error: OAuth2Error) -> Reply:
        """The answer. That a real code or token was misused is recorded too."""
        if request is not None and request.presented and reason_of(error):
            event = auth_event(
                "refreshed" if "refresh_token" in request.form else "granted",
                refused=reason_of(error),
                grant=request.presented,
                address=request.address,
                detail=f"shown by client {request.payload.client_id or 'unknown'}"[:300],
            )
            request.outcome.refusals.append(event)
        reply: Reply = super().handle_error_response(request, error)
        return reply

    def send_signal(self, name: str, *args: object, **kwargs: object) -> None:
        """Authlib's way of telling a framework; nobody listens."""

    def get_authorization_grant(self, request: OAuthRequest) -> Any:
        """As Authlib's, whose own error breaks on a response type that cannot stand in a description."""
        for parameter in request.payload.datalist:
            if parameter != "resource" and len(request.payload.all(parameter)) > 1:
                raise InvalidRequestError("A parameter is given more than once.")
        if request.payload.response_type == "code":
            return super().get_authorization_grant(request)
        client = self.query_client(request.payload.client_id or "")
        uri = request.payload.redirect_uri
        known = uri if client and uri and client.check_redirect_uri(uri) else None
        if not request.payload.response_type:
            raise InvalidRequestError("Missing 'response_type' in request.", redirect_uri=known)
        raise UnsupportedResponseTypeError("of this kind", redirect_uri=known)
