"""What an administrator may set of a server's authorization server. Nothing is needed where the upstream says
all of it itself."""

import re
from typing import Literal, TypeAlias

import msgspec

from libs.common.control.entries import Server
from libs.common.errors import BadRequest
from services.credentials.domain import Provider
from services.credentials.layout import Layout
from services.credentials.oauth.domain import OWN_PARAMETERS, Client, Metadata
from services.credentials.oauth.web import Web

# How a client with a secret says who it is; "" takes what the metadata offers.
Method: TypeAlias = Literal["", "client_secret_basic", "client_secret_post"]

LONGEST = 30 * 24 * 3600  # seconds, of an access token's lifetime
_SCOPES = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+(?: [\x21\x23-\x5b\x5d-\x7e]+)*")  # RFC 6749, section 3.3
_TEXTS = {"client_id": 500, "client_secret": 2000, "scopes": 2000, "resource": 500, "identity_field": 100}
_URLS = ("issuer", "authorization_endpoint", "token_endpoint", "revocation_endpoint", "identity_endpoint")


class OAuthSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All may be empty.

    `issuer`: its metadata is read instead of asking the upstream for its authorization server; or the two
    endpoints are entered. Without a `client_id` Lockgate registers by itself. `identity_endpoint` tells, in
    `identity_field` of a JSON object, as whom somebody is connected. `lifetime` (seconds) is that of an
    access token where the provider does not say.
    """

    issuer: str = ""
    authorization_endpoint: str = ""
    token_endpoint: str = ""
    revocation_endpoint: str = ""
    identity_endpoint: str = ""
    identity_field: str = ""
    client_id: str = ""
    auth_method: Method = ""
    scopes: str = ""  # instead of those that the upstream names
    resource: str = ""  # RFC 8707; instead of what the upstream says it is
    send_resource: bool = True
    assume_pkce: bool = False  # it takes PKCE though its metadata does not say so
    authorize_parameters: dict[str, str] = {}  # more of them, such as access_type=offline
    token_parameters: dict[str, str] = {}
    lifetime: int = 0

    def check(self, client_secret: str) -> None:
        """Raise `BadRequest` for what can never work."""
        for name in _URLS:
            if url := getattr(self, name):
                Web(private=True).check(name, url)
        for name, most in _TEXTS.items():
            text = client_secret if name == "client_secret" else getattr(self, name)
            if len(text) > most or not text.isprintable():
                raise BadRequest(f"{name} is one line of at most {most} characters")
        if bool(self.authorization_endpoint) != bool(self.token_endpoint):
            raise BadRequest("enter both the authorization and the token endpoint, or neither")
        if self.entered and not self.client_id:
            raise BadRequest("endpoints that are entered need a client id: register Lockgate there first")
        if client_secret and not self.client_id:
            raise BadRequest("a client secret needs a client id")
        if self.scopes and not _SCOPES.fullmatch(self.scopes):
            raise BadRequest("scopes are words separated by single spaces")
        if not 0 <= self.lifetime <= LONGEST:
            raise BadRequest(f"lifetime is in seconds, at most {LONGEST}")
        for name in ("authorize_parameters", "token_parameters"):
            _check_parameters(name, getattr(self, name))

    @property
    def entered(self) -> bool:
        """Whether the endpoints are known without asking anybody."""
        return bool(self.token_endpoint)

    def serves(self, issuer: str, token_endpoint: str, *, first: str = "") -> bool:
        """Whether the client that was entered is one of that authorization server: of the one that was
        entered, or else of the `first` (`ProviderSecrets`)."""
        if self.token_endpoint:
            return token_endpoint == self.token_endpoint
        return issuer.rstrip("/") == (self.issuer or first).rstrip("/")

    @property
    def urls(self) -> list[str]:
        """The addresses that an administrator entered, and so allowed to be on our own network."""
        return [url for name in _URLS if (url := getattr(self, name))]

    def metadata(self) -> Metadata:
        """That of endpoints that were entered."""
        return Metadata(
            issuer=self.issuer,
            authorization_endpoint=self.authorization_endpoint,
            token_endpoint=self.token_endpoint,
            revocation_endpoint=self.revocation_endpoint,
        )

    def client(self, secret: str, metadata: Metadata) -> Client:
        """The client that was entered."""
        return Client(
            issuer=metadata.issuer,
            client_id=self.client_id,
            client_secret=secret,
            auth_method=(secret and self.auth_method) or metadata.auth_method(secret=bool(secret)),
        )


class ProviderSecrets(msgspec.Struct, frozen=True, kw_only=True):
    """What the vault keeps of a provider: the secret that was entered, and the client that we registered.

    Where no authorization server was entered, the secret is for the issuer that the upstream named `first`:
    an upstream that names another one later could read it there."""

    client_secret: str = ""
    first: str = ""
    registered: Client | None = None

    def __repr__(self) -> str:
        return f"ProviderSecrets(registered={self.registered!r})"


def settings_of(provider: Provider | None) -> OAuthSettings:
    """The settings of a provider; the usual ones where none are stored."""
    if provider is None or provider.kind != "oauth" or not provider.settings:
        return OAuthSettings()
    return msgspec.json.decode(provider.settings, type=OAuthSettings)


def secrets_of(secret: bytes) -> ProviderSecrets:
    return msgspec.json.decode(secret, type=ProviderSecrets) if secret else ProviderSecrets()


def check_layout(layout: Layout, server: Server) -> None:
    """Raise `BadRequest` unless the layout places an access token, and that alone, where `server` takes
    it."""
    if layout.names != {"access_token"}:
        raise BadRequest("the template must name {access_token} and no other field")
    layout.check_fits(server)


def _check_parameters(what: str, parameters: dict[str, str]) -> None:
    if len(parameters) > 20 or sum(len(k) + len(v) for k, v in parameters.items()) > 4000:
        raise BadRequest(f"{what}: at most 20, and 4000 characters in all")
    for name, value in parameters.items():
        if not name or not name.isascii() or not (name + value).isprintable():
            raise BadRequest(f"{what}: {name[:80]!r} cannot be sent")
        if name.lower() in OWN_PARAMETERS:
            raise BadRequest(f"{what}: {name} is sent by Lockgate itself")
