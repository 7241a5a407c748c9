"""What we know of an authorization server, and what somebody got from it. Nothing here does I/O."""

import time
from typing import Any, Literal, TypeAlias
from urllib.parse import urlsplit

import msgspec

from libs.common.errors import BadRequest, LockgateError

AuthMethod: TypeAlias = Literal["none", "client_secret_basic", "client_secret_post"]

# What a client of ours sends by itself (RFC 6749, RFC 7636, RFC 8707); settings may add others only.
OWN_PARAMETERS = frozenset({
    "client_id", "client_secret", "code", "code_challenge", "code_challenge_method", "code_verifier",
    "grant_type", "redirect_uri", "refresh_token", "resource", "response_type", "scope", "state",
})  # fmt: skip
SECRET_LENGTH = 16384  # characters of a token
LONGEST_LIFETIME = 10 * 365 * 24 * 3600  # seconds; what is said to last longer is as good as forever


class ProviderFailed(LockgateError):
    """The authorization server does not answer, or not as it should. Another try may help."""

    status, type, title = 502, "provider-failed", "The provider does not answer as it should"


class ProviderRefused(LockgateError):
    """The authorization server refused with one of the error codes of RFC 6749, section 5.2."""

    status, type, title = 400, "provider-refused", "The provider refused"

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    """What we use of an authorization server's metadata (RFC 8414, section 2)."""

    issuer: str = ""
    authorization_endpoint: str
    token_endpoint: str
    registration_endpoint: str = ""
    revocation_endpoint: str = ""
    userinfo_endpoint: str = ""
    scopes_supported: list[str] = []
    code_challenge_methods_supported: list[str] = []
    token_endpoint_auth_methods_supported: list[str] = []  # empty: client_secret_basic
    authorization_response_iss_parameter_supported: bool = False

    def auth_method(self, *, secret: bool) -> AuthMethod:
        """How a client with or without a secret says who it is at the token endpoint."""
        if not secret:
            return "none"
        posts = "client_secret_basic" not in self.auth_methods and "client_secret_post" in self.auth_methods
        return "client_secret_post" if posts else "client_secret_basic"

    @property
    def auth_methods(self) -> list[str]:
        return self.token_endpoint_auth_methods_supported or ["client_secret_basic"]


class Client(msgspec.Struct, frozen=True, kw_only=True):
    """Who we are at the authorization server `issuer`. `registered_for`: we registered by ourselves, with
    that redirect URI; empty for a client that an administrator entered. `expires_at` (Unix seconds) is when
    its secret ends, 0 for never."""

    issuer: str = ""
    client_id: str
    client_secret: str = ""
    auth_method: AuthMethod = "none"
    registered_for: str = ""
    expires_at: int = 0

    def __repr__(self) -> str:
        return f"Client({self.client_id!r})"

    def serves(self, issuer: str, redirect_uri: str) -> bool:
        """Whether this registration can be used there, with that redirect URI, now."""
        lasts = not self.expires_at or self.expires_at > time.time() + 60
        return lasts and (self.issuer, self.registered_for) == (issuer, redirect_uri)


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What the upstream and its authorization server say of themselves."""

    metadata: Metadata
    resource: str = ""  # RFC 8707; empty: not to be sent
    scopes: str = ""


class Connection(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody got from an authorization server, and all that is needed to renew it there: a token goes
    back to nobody but the server that gave it. `expires_at` is in Unix seconds, 0 where it is not known."""

    issuer: str = ""
    token_endpoint: str
    revocation_endpoint: str = ""
    client: Client
    resource: str = ""
    token_parameters: dict[str, str] = {}
    lifetime: int = 0  # seconds, where the provider does not say
    access_token: str
    refresh_token: str = ""
    scope: str = ""
    obtained_at: float
    expires_at: float = 0.0

    def __repr__(self) -> str:
        return f"Connection({self.token_endpoint!r}, {self.client!r}, expires_at={self.expires_at})"

    def renewed(self, answer: "TokenAnswer") -> "Connection":
        """After a refresh. A refresh token that is missing or empty in the answer stays as it was (RFC 6749,
        section 6)."""
        return msgspec.structs.replace(
            self,
            access_token=answer.access_token,
            refresh_token=answer.refresh_token or self.refresh_token,
            scope=answer.scope or self.scope,
            obtained_at=answer.obtained_at,
            expires_at=answer.expires_at,
        )

    def encode(self) -> bytes:
        """The secret of an account of the kind `oauth`."""
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, secret: bytes) -> "Connection":
        return msgspec.json.decode(secret, type=cls)

    @property
    def values(self) -> dict[str, str]:
        """What the layout of its server places."""
        return {"access_token": self.access_token}


class TokenAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A good answer of a token endpoint (RFC 6749, section 5.1), its lifetime turned into a time."""

    access_token: str
    refresh_token: str = ""
    scope: str = ""
    id_token: str = ""
    obtained_at: float
    expires_at: float = 0.0

    def __repr__(self) -> str:
        return f"TokenAnswer(expires_at={self.expires_at})"


def token_answer(found: dict[str, Any], asked_at: float, lifetime: int = 0) -> TokenAnswer:
    """Read what a token endpoint said. `asked_at` is when it was asked, in Unix seconds: the lifetime is
    counted from there, on the safe side. `lifetime` holds where the answer names none. Raises
    `ProviderFailed`."""
    access = found.get("access_token")
    if not isinstance(access, str) or not _is_token(access):
        raise ProviderFailed("its answer has no usable access token")
    kind = found.get("token_type") or "bearer"
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise ProviderFailed(f"it gives tokens of the kind {short(kind)}, and only bearer tokens can be used")
    seconds = _seconds(found.get("expires_in")) or lifetime
    return TokenAnswer(
        access_token=access,
        refresh_token=_text(found, "refresh_token"),
        scope=_text(found, "scope"),
        id_token=_text(found, "id_token"),
        obtained_at=asked_at,
        expires_at=asked_at + seconds if seconds else 0.0,
    )


def _is_token(text: str) -> bool:
    """Whether `text` can stand in a header as it is (RFC 6750, section 2.1, as providers take it)."""
    return 0 < len(text) <= SECRET_LENGTH and text.isascii() and text.isprintable() and " " not in text


def _text(found: dict[str, Any], name: str) -> str:
    value = found.get(name)
    return value if isinstance(value, str) and len(value) <= SECRET_LENGTH else ""


def _seconds(value: object) -> int:
    """A lifetime as providers write it: a number, or one in a string. No more than a calendar can hold."""
    try:
        return min(LONGEST_LIFETIME, max(0, int(float(value))))  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return 0


def short(text: object) -> str:
    """What a stranger said, fit for a sentence of ours."""
    return "".join(c for c in str(text) if c.isprintable())[:200]


def check_endpoint(name: str, url: str, *, private: bool) -> str:
    """`url` if a secret may be sent to it: HTTPS, or HTTP where private addresses are allowed. Raises
    `BadRequest`."""
    try:
        parts = urlsplit(url)
        usable = bool(parts.hostname) and url.isascii() and url.isprintable() and " " not in url
        usable = usable and not parts.fragment and parts.username is None and (parts.port or 1) > 0
    except ValueError:
        usable, parts = False, urlsplit("")
    if not usable or parts.scheme not in {"http", "https"}:
        raise BadRequest(f"{name} must be a URL such as https://auth.example.com/token")
    if parts.scheme == "http" and not private:
        raise BadRequest(f"{name} must begin with https://")
    return url
