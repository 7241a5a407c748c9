"""The organization's OpenID provider: its metadata and keys, and what it says of somebody who signed in
(OpenID Connect Core 1.0 and Discovery 1.0; RFC 9700 for how the code flow is to be used).
"""

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx2
import structlog
from authlib.integrations.base_client import OAuthError
from authlib.integrations.httpx_client import AsyncOAuth2Client
from joserfc import jwt
from joserfc.errors import BadSignatureError, InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet
from pydantic import BaseModel, ConfigDict, ValidationError

from libs.common.clock import elapsed
from services.auth.settings import AuthSettings
from services.auth.sso.claims import claim, wanted_claims
from services.auth.sso.domain import ProviderFailed
from services.auth.sso.id_token import ALGORITHMS, check_claims

log = structlog.get_logger(__name__)

TIMEOUT = 10.0  # seconds for each request
FRESH = 3600.0  # seconds for which metadata is not asked for again
CALLBACK = "/login/sso/callback"


class Metadata(BaseModel):
    """What we use of the provider's metadata (Discovery 1.0, section 3)."""

    model_config = ConfigDict(extra="ignore")

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str = ""
    id_token_signing_alg_values_supported: list[str] = ["RS256"]
    token_endpoint_auth_methods_supported: list[str] = ["client_secret_basic"]
    authorization_response_iss_parameter_supported: bool = False  # RFC 9207, section 3

    @property
    def algorithms(self) -> list[str]:
        """Those of the provider's that we accept too. `none` and shared-secret ones are never among them."""
        return [name for name in self.id_token_signing_alg_values_supported if name in ALGORITHMS]

    @property
    def auth_method(self) -> str:
        """How to present a client secret."""
        offered = self.token_endpoint_auth_methods_supported
        posts = "client_secret_basic" not in offered and "client_secret_post" in offered
        return "client_secret_post" if posts else "client_secret_basic"


class Provider:
    """`transport` replaces the network, for tests of answers that no real provider gives."""

    def __init__(self, settings: AuthSettings, transport: httpx2.AsyncBaseTransport | None = None) -> None:
        self._settings, self._transport = settings, transport
        self._lock = asyncio.Lock()
        self._metadata: Metadata | None = None
        self._keys: KeySet | None = None
        self._read_at = 0.0

    @property
    def host(self) -> str:
        return urlsplit(self._settings.auth_oidc_issuer).hostname or ""

    async def authorization_url(self, *, state: str, nonce: str, verifier: str, **extra: str) -> str:
        """Where to send the browser. Raises `ProviderFailed`."""
        metadata = await self.metadata()
        async with self._client(metadata) as client:
            url, _ = client.create_authorization_url(
                metadata.authorization_endpoint, state=state, nonce=nonce, code_verifier=verifier, **extra
            )
        return str(url)

    async def redeem(self, code: str, *, verifier: str, nonce: str) -> Mapping[str, Any]:
        """The claims of the person who signed in, from the ID token and, for those that are not in it, the
        userinfo endpoint. Raises `ProviderFailed`."""
        metadata = await self.metadata()
        try:
            async with self._client(metadata) as client:
                tokens = await client.fetch_token(
                    metadata.token_endpoint,
                    grant_type="authorization_code",
                    code=code,
                    redirect_uri=self._settings.public_url + CALLBACK,
                    code_verifier=verifier,
                )
        except OAuthError as error:
            raise ProviderFailed(f"its token endpoint refuses the code: {_short(error.error)}") from error
        except (httpx2.HTTPError, ValueError) as error:
            raise ProviderFailed(f"its token endpoint failed: {_short(error)}") from error
        claims = await self._id_token(str(tokens.get("id_token") or ""), nonce, metadata)
        return await self._complete(claims, str(tokens.get("access_token") or ""), metadata)

    async def metadata(self) -> Metadata:
        """Raises `ProviderFailed`. Metadata of some other issuer is refused (Discovery 1.0, section 4.3)."""
        async with self._lock:
            if self._metadata is None or elapsed() - self._read_at > FRESH:
                issuer = self._settings.auth_oidc_issuer
                found = await self._get(issuer.rstrip("/") + "/.well-known/openid-configuration")
                self._metadata, self._keys = _metadata(found, issuer), None
                self._read_at = elapsed()
            return self._metadata

    async def _id_token(self, token: str, nonce: str, metadata: Metadata) -> dict[str, Any]:
        if not token:
            raise ProviderFailed("its token endpoint gave no ID token", "sso_bad_token")
        try:
            try:
                decoded = jwt.decode(token, await self._key_set(metadata), algorithms=metadata.algorithms)
            except (InvalidKeyIdError, BadSignatureError):  # it may have a new key
                self._keys = None
                decoded = jwt.decode(token, await self._key_set(metadata), algorithms=metadata.algorithms)
            return check_claims(
                decoded.claims,
                issuer=metadata.issuer,
                client_id=self._settings.auth_oidc_client_id,
                nonce=nonce,
            )
        except (JoseError, ValueError) as error:
            raise ProviderFailed(
                f"its ID token cannot be accepted: {_short(error)}", "sso_bad_token"
            ) from error

    async def _key_set(self, metadata: Metadata) -> KeySet:
        if self._keys is None:
            found = await self._get(metadata.jwks_uri)
            try:
                self._keys = KeySet.import_key_set(found)
            except (JoseError, ValueError, KeyError, TypeError) as error:
                raise ProviderFailed(f"its keys cannot be read: {_short(error)}") from error
        return self._keys

    async def _complete(self, claims: dict[str, Any], access: str, metadata: Metadata) -> Mapping[str, Any]:
        """`claims`, with what the userinfo endpoint has beside them if something that we need is missing. It
        must speak of the same person (Core 1.0, section 5.3.2)."""
        missing = any(claim(claims, name) is None for name in wanted_claims(self._settings))
        if not missing or not access or not metadata.userinfo_endpoint:
            return claims
        headers = {"Authorization": f"Bearer {access}"}
        more: dict[str, Any] = await self._get(metadata.userinfo_endpoint, headers)
        if more.get("sub") != claims["sub"]:
            raise ProviderFailed("its userinfo endpoint speaks of somebody else", "sso_bad_token")
        if "email_verified" not in claims:  # then that of the address is meant which stands beside it
            claims = {name: value for name, value in claims.items() if name != "email" or name not in more}
        return more | claims

    async def _get(self, url: str, headers: Mapping[str, str] | None = None) -> Any:
        """A JSON object. Raises `ProviderFailed`."""
        try:
            async with httpx2.AsyncClient(timeout=TIMEOUT, transport=self._transport) as client:
                answer = await client.get(url, headers={"Accept": "application/json", **(headers or {})})
            answer.raise_for_status()
            found = answer.json()
        except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
            raise ProviderFailed(f"{url[:200]} cannot be read: {_short(error)}") from error
        if not isinstance(found, dict):
            raise ProviderFailed(f"{url[:200]} is not a JSON object")
        return found

    def _client(self, metadata: Metadata) -> Any:
        settings, secret = self._settings, self._settings.auth_oidc_client_secret
        return AsyncOAuth2Client(
            settings.auth_oidc_client_id,
            secret.get_secret_value() if secret else None,
            token_endpoint_auth_method=metadata.auth_method if secret else "none",
            scope=settings.auth_oidc_scopes,
            redirect_uri=settings.public_url + CALLBACK,
            code_challenge_method="S256",
            timeout=TIMEOUT,
            transport=self._transport,
        )


def _metadata(found: dict[str, Any], issuer: str) -> Metadata:
    try:
        metadata = Metadata.model_validate(found)
    except ValidationError as error:
        names = ", ".join(str(wrong["loc"][0]) for wrong in error.errors())
        raise ProviderFailed(f"its metadata is not right in {names}") from error
    if metadata.issuer != issuer:
        raise ProviderFailed(f"its metadata says that it is {metadata.issuer[:200]!r}, not {issuer!r}")
    scheme = urlsplit(issuer).scheme
    ends = (
        metadata.authorization_endpoint,
        metadata.token_endpoint,
        metadata.jwks_uri,
        metadata.userinfo_endpoint,
    )
    if any(end and urlsplit(end).scheme not in {scheme, "https"} for end in ends):
        raise ProviderFailed("its metadata names endpoints that are not https")
    if not metadata.algorithms:
        raise ProviderFailed("it signs ID tokens with no algorithm that is accepted here")
    return metadata


def _short(error: object) -> str:
    text = str(error) or type(error).__name__
    return "".join(c for c in text if c.isprintable())[:200]
