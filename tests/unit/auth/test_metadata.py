"""What a client reads and does before anybody signs in: metadata, keys, registration."""

from typing import Any

import httpx2
import pytest
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata
from joserfc.jwk import ECKey
from mcp.shared.auth import OAuthClientInformationFull, OAuthMetadata

from services.auth.domain import GRANT_TYPES
from services.auth.oauth import redirects
from tests.unit.auth.house import ORIGIN, House

METADATA = ("/.well-known/oauth-authorization-server", "/.well-known/openid-configuration")


@pytest.mark.parametrize("path", METADATA)
async def test_metadata_is_exact(house: House, path: str) -> None:
    body = (await house.http().get(path)).json()
    AuthorizationServerMetadata(body).validate()
    assert str(OAuthMetadata.model_validate(body).issuer) == ORIGIN
    expected = {
        "issuer": ORIGIN,
        "authorization_endpoint": f"{ORIGIN}/oauth/authorize",
        "token_endpoint": f"{ORIGIN}/oauth/token",
        "registration_endpoint": f"{ORIGIN}/oauth/register",
        "revocation_endpoint": f"{ORIGIN}/oauth/revoke",
        "introspection_endpoint": f"{ORIGIN}/oauth/introspect",
        "introspection_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        "prompt_values_supported": ["none", "login", "consent", "select_account"],
        "device_authorization_endpoint": f"{ORIGIN}/oauth/device_authorization",
        "jwks_uri": f"{ORIGIN}/.well-known/jwks.json",
        "response_types_supported": ["code"],
        "grant_types_supported": list(GRANT_TYPES),
        "code_challenge_methods_supported": ["S256"],
        "scopes_supported": ["mcp", "offline_access"],
        "authorization_response_iss_parameter_supported": True,
        "client_id_metadata_document_supported": True,
    }
    assert {name: body[name] for name in expected} == expected


async def test_every_endpoint_of_the_metadata_is_there(house: House) -> None:
    http = house.http()
    body = (await http.get(METADATA[0])).json()
    for name in ("authorization_endpoint", "jwks_uri"):
        assert (await http.get(body[name])).status_code in {200, 400}
    for name in ("token", "registration", "revocation", "device_authorization", "introspection"):
        assert (await http.post(body[f"{name}_endpoint"])).status_code == 400


@pytest.mark.parametrize("path", METADATA)
@pytest.mark.parametrize("server", ["/mcp", "/mcp/demo", "/mcp/demo/sse"])
async def test_the_same_metadata_lies_where_a_servers_path_is_inserted(
    house: House, path: str, server: str
) -> None:
    """RFC 8414, section 3.1: clients derive it from the URL of a server."""
    http = house.http()
    inserted = await http.get(f"{path}{server}", headers={"Origin": "https://inspector.example"})
    assert inserted.json() == (await http.get(path)).json()
    assert inserted.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize("path", METADATA)
@pytest.mark.parametrize("beneath", ["/elsewhere", "/mcp/a/b", "/api"])
async def test_there_is_no_metadata_of_other_issuers(house: House, path: str, beneath: str) -> None:
    assert (await house.http().get(f"{path}{beneath}")).status_code == 404


async def test_jwks_holds_public_keys_that_are_the_control_logs(house: House) -> None:
    keys = (await house.http().get("/.well-known/jwks.json")).json()["keys"]
    assert keys == house.app.state.follower.tables.keys.keys
    for key in keys:
        assert "d" not in key
        assert (key["alg"], key["use"], key["crv"]) == ("ES256", "sig", "P-256")
        assert key["kid"] == ECKey.import_key(key).thumbprint()


async def test_browser_clients_of_any_origin_may_use_the_protocol_endpoints(house: House) -> None:
    http = house.http()
    origin = {"Origin": "https://inspector.example"}
    for path in (*METADATA, "/.well-known/jwks.json"):
        answer = await http.get(path, headers=origin)
        assert answer.headers["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in answer.headers
    ask = origin | {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
    for path in ("/oauth/token", "/oauth/register", "/oauth/revoke"):
        preflight = await http.options(path, headers=ask)
        assert (preflight.status_code, preflight.headers["access-control-allow-origin"]) == (200, "*")
        answer = await http.post(path, headers=origin)
        assert answer.headers["access-control-allow-origin"] == "*"
    for path in ("/login", "/oauth/authorize", "/api/auth/users"):
        assert "access-control-allow-origin" not in (await http.get(path, headers=origin)).headers


# -- registration (RFC 7591) ---------------------------------------------------------------------------


async def register(house: House, **metadata: Any) -> httpx2.Response:
    return await house.http().post("/oauth/register", json=metadata)


async def test_a_public_client_registers(house: House) -> None:
    asked = {
        "client_name": "Cursor",
        "redirect_uris": ["cursor://anysphere.cursor-retrieval/oauth/user-agent-1/callback"],
        "token_endpoint_auth_method": "none",
        "grant_types": [
            "authorization_code",
            "refresh_token",
            "urn:ietf:params:oauth:grant-type:device_code",
            "client_credentials",
        ],
        "response_types": ["code"],
        "scope": "mcp",
        "logo_uri": "https://cursor.example/logo.png",
    }
    answer = await register(house, **asked)
    body = answer.json()
    assert answer.status_code == 201
    OAuthClientInformationFull.model_validate(body)
    assert "client_secret" not in body
    assert body["redirect_uris"] == asked["redirect_uris"]
    assert body["grant_types"] == asked["grant_types"][:3], "what is not offered is left out"
    event = house.event("client_registered")
    assert (event.client_name, event.client_id) == ("Cursor", body["client_id"])


async def test_a_confidential_client_gets_a_secret_once(house: House) -> None:
    body = (
        await register(
            house, redirect_uris=["https://app.example/cb"], token_endpoint_auth_method="client_secret_post"
        )
    ).json()
    assert len(body["client_secret"]) >= 43
    assert body["client_secret_expires_at"] == 0
    stored = house.parts.store.clients.get(body["client_id"])
    assert stored is not None
    assert body["client_secret"] not in stored.secret_hash


@pytest.mark.parametrize(
    "uri",
    [
        "http://app.example/callback",
        "http://127.0.0.1.evil.example/callback",
        "http://localhost.evil.example/",
        "javascript:alert(1)",
        "data:text/html,x",
        "https://app.example/callback#fragment",
        "https://user@app.example/callback",
        "https:///callback",
        "HTTPS://app.example/callback",
        "Http://127.0.0.1/callback",
        "Evil-App://callback",
        "/relative",
        "https://app.example/\\evil",
        "https://app.example/with space",
        "https://app.example:99999/",
        "https://app.example/" + "x" * 2000,
        "",
    ],
)
async def test_a_redirect_uri_that_cannot_be_registered(house: House, uri: str) -> None:
    answer = await register(house, redirect_uris=[uri])
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_redirect_uri")


@pytest.mark.parametrize(
    ("metadata", "error"),
    [
        ({}, "invalid_redirect_uri"),
        ({"redirect_uris": []}, "invalid_redirect_uri"),
        ({"redirect_uris": "https://app.example/"}, "invalid_redirect_uri"),
        ({"redirect_uris": [1]}, "invalid_redirect_uri"),
        ({"redirect_uris": ["https://a.example/"], "client_name": {"x": 1}}, "invalid_client_metadata"),
        ({"redirect_uris": ["https://a.example/"], "client_name": "x" * 201}, "invalid_client_metadata"),
        (
            {"redirect_uris": ["https://a.example/"], "token_endpoint_auth_method": "private_key_jwt"},
            "invalid_client_metadata",
        ),
        (
            {"redirect_uris": ["https://a.example/"], "grant_types": ["client_credentials"]},
            "invalid_client_metadata",
        ),
        (
            {"redirect_uris": ["https://a.example/"], "response_types": ["token"]},
            "invalid_client_metadata",
        ),
    ],
)
async def test_metadata_that_makes_no_client(house: House, metadata: dict[str, Any], error: str) -> None:
    answer = await register(house, **metadata)
    assert (answer.status_code, answer.json()["error"]) == (400, error)


async def test_what_is_no_json_or_far_too_long_is_refused(house: House) -> None:
    http = house.http()
    assert (await http.post("/oauth/register", content=b"{")).status_code == 400
    assert (await http.post("/oauth/register", content=b"[]")).status_code == 400
    assert (await http.post("/oauth/register", content=b"x" * 70_000)).status_code == 413


async def test_registrations_of_one_address_are_limited(house: House) -> None:
    http = house.http("192.0.2.7")
    metadata = {"redirect_uris": ["https://app.example/cb"]}
    limit = house.settings.auth_registrations_per_hour
    statuses = [(await http.post("/oauth/register", json=metadata)).status_code for _ in range(limit + 1)]
    assert statuses == [201] * limit + [429]
    assert (await house.http("192.0.2.8").post("/oauth/register", json=metadata)).status_code == 201


@pytest.mark.parametrize(
    ("registered", "requested", "same"),
    [
        ("http://127.0.0.1/cb", "http://127.0.0.1:4711/cb", True),
        ("http://127.0.0.1:1/cb", "http://127.0.0.1/cb", True),
        ("http://[::1]/cb", "http://[::1]:4711/cb", True),
        ("http://localhost:1", "http://localhost:2", True),
        ("http://localhost/cb", "http://127.0.0.1/cb", False),
        ("http://127.0.0.1/cb", "http://127.0.0.1:4711/cb/", False),
        ("http://127.0.0.1/cb", "https://127.0.0.1:4711/cb", False),
        ("http://127.0.0.1/cb", "http://127.0.0.1:99999/cb", False),
        ("https://app.example/cb", "https://app.example:8443/cb", False),
        ("https://app.example/cb", "https://app.example/cb", True),
    ],
)
def test_redirect_uris_match_exactly_but_for_the_port_of_a_loopback_one(
    registered: str, requested: str, same: bool
) -> None:
    assert redirects.matches(registered, requested) is same
