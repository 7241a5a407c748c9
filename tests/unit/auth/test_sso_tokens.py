"""ID tokens that no honest provider gives, each refused (OpenID Connect Core 1.0, section 3.1.3.7), and
settings that would let in too many or nobody."""

import base64
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey, OctKey, RSAKey
from pydantic import SecretStr

from libs.common.settings import BadSettings, load
from services.auth.settings import AuthSettings
from services.auth.sso.claims import claim, person_of
from services.auth.sso.domain import ProviderFailed
from services.auth.sso.provider import Provider

ISSUER = "https://id.example"
RSA = RSAKey.generate_key(2048, {"kid": "rsa"})
EC = ECKey.generate_key("P-256", {"kid": "ec"})
STRANGER = ECKey.generate_key("P-256", {"kid": "ec"})
OIDC: dict[str, Any] = {
    "auth_oidc_issuer": ISSUER,
    "auth_oidc_client_id": "lockgate",
    "auth_oidc_client_secret": SecretStr("the client's secret"),
    "auth_oidc_allowed_domains": "example.com",
}


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    said = {
        "iss": ISSUER,
        "sub": "ada",
        "aud": "lockgate",
        "iat": now,
        "exp": now + 300,
        "nonce": "the nonce",
        "email": "ada@example.com",
        "email_verified": True,
        **changes,
    }
    return {name: value for name, value in said.items() if value is not None}


def unsigned(said: dict[str, Any]) -> str:
    parts = [json.dumps(part).encode() for part in ({"alg": "none"}, said)]
    return ".".join([*(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts), ""])


def provider_with(id_token: str, **metadata: Any) -> Provider:
    """A provider whose token endpoint gives this ID token."""
    public = {"keys": [key.as_dict(private=False) for key in (RSA, EC)]}
    answers: dict[str, Any] = {
        "/.well-known/openid-configuration": {
            "issuer": ISSUER,
            "authorization_endpoint": f"{ISSUER}/authorize",
            "token_endpoint": f"{ISSUER}/token",
            "jwks_uri": f"{ISSUER}/jwks",
            "userinfo_endpoint": f"{ISSUER}/userinfo",
            "id_token_signing_alg_values_supported": ["RS256", "ES256", "HS256", "none"],
            **metadata,
        },
        "/token": {"access_token": "x", "token_type": "Bearer", "id_token": id_token},
        "/jwks": public,
        "/userinfo": {"sub": "somebody else", "email": "root@example.com", "email_verified": True},
    }
    transport = httpx2.MockTransport(lambda request: httpx2.Response(200, json=answers[request.url.path]))
    return Provider(AuthSettings(**OIDC), transport)


async def redeemed(provider: Provider) -> Any:
    return await provider.redeem("code", verifier="v" * 43, nonce="the nonce")


@pytest.mark.parametrize(("key", "algorithm"), [(RSA, "RS256"), (EC, "ES256")])
async def test_a_token_in_order(key: Any, algorithm: str) -> None:
    token = jwt.encode({"alg": algorithm, "kid": key.kid}, claims(), key)
    assert (await redeemed(provider_with(token)))["sub"] == "ada"


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://evil.example"},
        {"iss": ISSUER + "/"},
        {"iss": None},
        {"aud": "another client"},
        {"aud": None},
        {"aud": ["lockgate", "another client"]},
        {"aud": ["lockgate", "another client"], "azp": "another client"},
        {"azp": "another client"},
        {"nonce": "of another sign-in"},
        {"nonce": ["the nonce", "of another sign-in"]},
        {"nonce": None},
        {"exp": int(time.time()) - 120},
        {"exp": None},
        {"exp": "never"},
        {"iat": int(time.time()) + 3600},
        {"iat": None},
        {"sub": None},
        {"sub": ""},
        {"sub": 7},
        {"sub": "x" * 256},
    ],
)
async def test_a_token_with_a_claim_that_is_not_right_is_refused(changes: dict[str, Any]) -> None:
    token = jwt.encode({"alg": "ES256", "kid": "ec"}, claims(**changes), EC)
    with pytest.raises(ProviderFailed) as failed:
        await redeemed(provider_with(token))
    assert failed.value.reason == "sso_bad_token"


async def test_a_token_for_several_clients_of_which_we_asked() -> None:
    said = claims(aud=["another client", "lockgate"], azp="lockgate")
    assert await redeemed(provider_with(jwt.encode({"alg": "ES256", "kid": "ec"}, said, EC)))


def _with_public_key_as_secret() -> str:
    """RS256 read as HS256 (RFC 8725, section 2.1). Libraries do not help with that any more."""
    signed = unsigned(claims()).rpartition(".")[0].partition(".")[2]
    header = base64.urlsafe_b64encode(b'{"alg":"HS256","kid":"rsa"}').rstrip(b"=").decode()
    digest = hmac.digest(RSA.as_pem(private=False), f"{header}.{signed}".encode(), "sha256")
    return f"{header}.{signed}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


def _with_client_secret() -> str:
    key = OctKey.import_key(b"the client's secret padded to 32 bytes")
    return jwt.encode({"alg": "HS256"}, claims(), key, algorithms=["HS256"])


@pytest.mark.parametrize(
    "forge",
    [
        lambda: unsigned(claims()),
        lambda: jwt.encode({"alg": "ES256", "kid": "ec"}, claims(), STRANGER),
        lambda: jwt.encode({"alg": "ES256", "kid": "unheard of"}, claims(), STRANGER),
        lambda: jwt.encode({"alg": "ES256", "kid": "ec"}, claims(), EC)[:-4] + "AAAA",
        _with_public_key_as_secret,
        _with_client_secret,
        lambda: "no token at all",
        lambda: "",
    ],
)
@pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
async def test_a_token_that_the_provider_did_not_sign_is_refused(forge: Callable[[], str]) -> None:
    with pytest.raises(ProviderFailed) as failed:
        await redeemed(provider_with(forge()))
    assert failed.value.reason == "sso_bad_token"


async def test_claims_about_somebody_else_are_refused() -> None:
    token = jwt.encode({"alg": "ES256", "kid": "ec"}, claims(email=None), EC)
    with pytest.raises(ProviderFailed) as failed:
        await redeemed(provider_with(token))
    assert "somebody else" in failed.value.why


@pytest.mark.parametrize(
    ("metadata", "why"),
    [
        ({"issuer": "https://evil.example"}, "says that it is"),
        ({"token_endpoint": "http://id.example/token"}, "not https"),
        ({"id_token_signing_alg_values_supported": ["HS256", "none"]}, "no algorithm"),
        ({"jwks_uri": None}, "not right in jwks_uri"),
    ],
)
async def test_metadata_that_is_not_right(metadata: dict[str, Any], why: str) -> None:
    with pytest.raises(ProviderFailed) as failed:
        await provider_with("", **metadata).metadata()
    assert why in failed.value.why


# -- what claims mean -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("roles", ["a"]),
        ("realm_access.roles", ["b"]),
        ("https://example.com/roles", ["c"]),
        ("realm_access.roles.more", None),
        ("nothing", None),
    ],
)
def test_a_claim_is_found_by_name_or_path(path: str, value: object) -> None:
    said = {"roles": ["a"], "realm_access": {"roles": ["b"]}, "https://example.com/roles": ["c"]}
    assert claim(said, path) == value


def test_all_domains_of_the_organizations_own_provider() -> None:
    settings = AuthSettings(**{**OIDC, "auth_oidc_allowed_domains": "*"})
    assert person_of(claims(email="ada@elsewhere.example"), settings).email == "ada@elsewhere.example"


def test_a_verified_address_may_be_said_in_text() -> None:
    assert person_of(claims(email_verified="true"), AuthSettings(**OIDC)).subject == "ada"


# -- settings ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"auth_oidc_issuer": "http://id.example"}, "AUTH_OIDC_ISSUER"),
        ({"auth_oidc_issuer": "https://id.example?x=1"}, "AUTH_OIDC_ISSUER"),
        ({"auth_oidc_client_id": ""}, "AUTH_OIDC_CLIENT_ID"),
        ({"auth_oidc_scopes": "email"}, "AUTH_OIDC_SCOPES"),
        ({"auth_oidc_allowed_domains": " , "}, "AUTH_OIDC_ALLOWED_DOMAINS"),
        ({"auth_oidc_role_claim": "roles"}, "AUTH_OIDC_ROLES"),
        ({"auth_oidc_roles": "a=admin"}, "AUTH_OIDC_ROLES"),
        ({"auth_oidc_role_claim": "roles", "auth_oidc_roles": "a=root"}, "AUTH_OIDC_ROLES"),
        ({"auth_oidc_issuer": "", "auth_password_login": "off"}, "AUTH_PASSWORD_LOGIN"),
        ({"auth_oidc_issuer": "", "auth_password_login": "administrator"}, "AUTH_PASSWORD_LOGIN"),
    ],
)
def test_settings_that_cannot_be_meant(changes: dict[str, str], complaint: str) -> None:
    with pytest.raises(BadSettings, match=f"LOCKGATE_{complaint}: "):
        load(AuthSettings, **{**OIDC, **changes})


def test_the_clients_secret_is_not_shown() -> None:
    assert "the client's secret" not in repr(AuthSettings(**OIDC))
