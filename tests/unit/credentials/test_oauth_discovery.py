"""Finding an upstream's authorization server, and becoming its client: against a real provider and upstream,
and against the answers that no good one gives."""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from libs.common.control.entries import Server
from libs.common.errors import BadRequest
from libs.common.fetching import CannotFetch, Fetched
from services.credentials.oauth import discovery, registration
from services.credentials.oauth.discovery import challenge_of, covers, discover
from services.credentials.oauth.domain import Found, Metadata, ProviderFailed
from services.credentials.oauth.web import Web
from tests.providers.running import OAuthProvider

URL = "https://mcp.example.com/v1/mcp"
ISSUER = "https://auth.example.com"
HERE = Web(private=True)


def server(url: str = URL, **more: Any) -> Server:
    return Server(version=1, slug="wiki", name="Wiki", url=url, auth="oauth", **more)


def metadata(issuer: str = ISSUER, **more: Any) -> dict[str, Any]:
    return {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}/authorize",
        "token_endpoint": f"{issuer}/token",
        "code_challenge_methods_supported": ["S256"],
        **more,
    }


class Site:
    """Answers by URL; everything else is not found. `asked` is what was asked for, in order."""

    def __init__(self, **challenge: str) -> None:
        parameters = ", ".join(f'{name}="{value}"' for name, value in challenge.items())
        self.answers = {URL: Fetched(b"", {"www-authenticate": f"Bearer {parameters}"}, 401)}
        self.asked: list[str] = []

    def has(self, url: str, document: Mapping[str, Any]) -> "Site":
        self.answers[url] = Fetched(json.dumps(document).encode(), {}, 200)
        return self

    async def __call__(self, method: str, url: str, limit: int, **_: Any) -> Fetched:
        self.asked.append(url)
        return self.answers.get(url, Fetched(b"not found", {}, 404))

    @property
    def web(self) -> Web:
        return Web(ask=self)


async def test_an_upstream_that_demands_authorization_needs_no_configuration(provider: OAuthProvider) -> None:
    found = await discover(server(provider.server_url), HERE)
    assert found.metadata.issuer == provider.issuer
    assert found.metadata.token_endpoint == f"{provider.issuer}/token"
    assert found.resource == provider.server_url
    assert found.scopes == "tools offline_access"


async def test_lockgate_registers_there_by_itself(provider: OAuthProvider) -> None:
    found = await discover(server(provider.server_url), HERE)
    client = await registration.register(found, "http://127.0.0.1:8080/credentials/callback", HERE)
    (known,) = (await provider.state())["clients"]
    assert client.client_id == known["client_id"]
    assert client.client_secret == known["client_secret"]
    assert known["redirect_uris"] == ["http://127.0.0.1:8080/credentials/callback"]
    assert client.client_secret not in repr(client)


async def test_without_registration_the_message_says_what_to_enter(provider: OAuthProvider) -> None:
    await provider.set(registration=False)
    found = await discover(server(provider.server_url), HERE)
    with pytest.raises(ProviderFailed, match=r"redirect URI http://here/callback .* client id"):
        await registration.register(found, "http://here/callback", HERE)


async def test_a_provider_on_our_own_network_is_not_asked_unless_that_is_allowed(
    provider: OAuthProvider,
) -> None:
    web = Web().trusting(provider.server_url)  # the administrator entered that address
    with pytest.raises(ProviderFailed, match="must begin with https"):
        await discover(server(provider.server_url), web)
    assert (await provider.state())["counts"] == {}
    found = await discover(server(provider.server_url), web.trusting(provider.issuer))
    assert found.metadata.issuer == provider.issuer


@pytest.mark.parametrize("url", ["https://127.0.0.1:1/", "https://[::1]:1/", "https://10.0.0.1/", URL])
async def test_even_by_https_nobody_is_led_into_our_network(url: str) -> None:
    async def resolved(*_: object, private: bool, **__: object) -> Fetched:
        assert not private
        raise CannotFetch("it is not on the open internet")

    with pytest.raises(ProviderFailed, match="not on the open internet"):
        await discovery.read_metadata(url, Web(ask=resolved))


async def test_the_challenge_names_the_metadata_and_the_scope() -> None:
    place = "https://mcp.example.com/about"
    site = Site(resource_metadata=place, scope="read write")
    site.has(place, {"resource": URL, "authorization_servers": [ISSUER], "scopes_supported": ["all"]})
    site.has(f"{ISSUER}/.well-known/oauth-authorization-server", metadata())
    found = await discover(server(), site.web)
    assert (found.resource, found.scopes) == (URL, "read write")
    assert site.asked[:2] == [URL, place]


@pytest.mark.parametrize(
    "place", ["/.well-known/oauth-protected-resource/v1/mcp", "/.well-known/oauth-protected-resource"]
)
async def test_without_a_challenge_the_well_known_places_are_looked_at(place: str) -> None:
    resource = {"resource": "https://mcp.example.com", "authorization_servers": [ISSUER]}
    site = Site().has(f"https://mcp.example.com{place}", resource)
    site.has(f"{ISSUER}/.well-known/oauth-authorization-server", metadata())
    assert (await discover(server(), site.web)).metadata.issuer == ISSUER


async def test_a_server_of_2025_03_26_is_its_own_authorization_server() -> None:
    own = "https://mcp.example.com"
    site = Site().has(f"{own}/.well-known/oauth-authorization-server", metadata(own))
    found = await discover(server(), site.web)
    assert (found.metadata.issuer, found.resource) == (own, URL)


@pytest.mark.parametrize(
    "place",
    [
        "/.well-known/oauth-authorization-server/tenant",
        "/.well-known/openid-configuration/tenant",
        "/tenant/.well-known/openid-configuration",
    ],
)
async def test_an_issuer_with_a_path_is_found_wherever_its_metadata_lies(place: str) -> None:
    issuer = f"{ISSUER}/tenant"
    site = Site().has(ISSUER + place, metadata(issuer))
    assert (await discovery.read_metadata(issuer, site.web)).issuer == issuer


async def test_the_next_authorization_server_is_tried_when_the_first_cannot_be_used() -> None:
    site = Site().has(
        "https://mcp.example.com/.well-known/oauth-protected-resource",
        {"resource": URL, "authorization_servers": ["https://gone.example.com", ISSUER]},
    )
    site.has(f"{ISSUER}/.well-known/oauth-authorization-server", metadata())
    assert (await discover(server(), site.web)).metadata.issuer == ISSUER


@pytest.mark.parametrize(
    ("document", "why"),
    [
        (metadata("https://evil.example.com"), "is that of 'https://evil.example.com'"),
        (metadata(code_challenge_methods_supported=["plain"]), "PKCE"),
        (metadata(code_challenge_methods_supported=None), "PKCE"),
        (metadata(token_endpoint="http://auth.example.com/token"), "must begin with https"),
        (metadata(token_endpoint="file:///etc/passwd"), "must be a URL"),
        (metadata(authorization_endpoint="javascript:alert(1)"), "must be a URL"),
        (metadata(authorization_endpoint=7), "cannot be used"),
        ({"issuer": ISSUER}, "cannot be used"),
    ],
)
async def test_bad_metadata_is_refused_and_the_message_says_why(document: dict[str, Any], why: str) -> None:
    site = Site().has(f"{ISSUER}/.well-known/oauth-authorization-server", document)
    with pytest.raises(ProviderFailed, match=why):
        await discovery.read_metadata(ISSUER, site.web)


async def test_an_administrator_can_say_that_pkce_is_taken_all_the_same() -> None:
    document = metadata(code_challenge_methods_supported=[])
    site = Site().has(f"{ISSUER}/.well-known/oauth-authorization-server", document)
    found = await discovery.read_metadata(ISSUER, site.web, assume_pkce=True)
    assert found.token_endpoint == f"{ISSUER}/token"


@pytest.mark.parametrize(
    ("resource", "part"),
    [
        ("https://mcp.example.com", True),
        ("https://mcp.example.com/v1", True),
        ("https://mcp.example.com:443/v1/mcp/", True),
        ("https://mcp.example.com/v1/mc", False),
        ("https://mcp.example.com/v2", False),
        ("https://evil.example.com/v1/mcp", False),
        ("http://mcp.example.com/v1/mcp", False),
        (None, False),
    ],
)
async def test_a_token_is_asked_for_this_server_and_no_other(resource: str | None, part: bool) -> None:
    assert covers(resource, URL) is part
    site = Site().has(
        "https://mcp.example.com/.well-known/oauth-protected-resource",
        {"resource": resource, "authorization_servers": [ISSUER]},
    )
    site.has(f"{ISSUER}/.well-known/oauth-authorization-server", metadata())
    if part:
        assert (await discover(server(), site.web)).resource == resource
    else:
        with pytest.raises(ProviderFailed, match="is no part of"):
            await discover(server(), site.web)


@pytest.mark.parametrize(
    ("header", "parameters"),
    [
        ('Bearer resource_metadata="//a", scope="x y"', {"resource_metadata": "//a", "scope": "x y"}),
        ("Bearer resource_metadata=https://a/b", {"resource_metadata": "https://a/b"}),
        ('Basic realm="a, scope=\\"b\\"", Bearer SCOPE="c"', {"realm": 'a, scope="b"', "scope": "c"}),
        ("Bearer", {}),
        ("", {}),
    ],
)  # fmt: skip
def test_a_challenge_is_read_as_http_has_it(header: str, parameters: dict[str, str]) -> None:
    assert challenge_of(header) == parameters


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Fetched(b'{"error": "access_denied", "error_description": "staff only"}', {}, 403), "staff only"),
        (Fetched(b"<html>", {}, 500), "status 500"),
        (Fetched(b"{}", {}, 201), "without telling their id"),
        (Fetched(b'{"client_id": "a", "token_endpoint_auth_method": "mtls"}', {}, 201), "mtls"),
    ],
)  # fmt: skip
async def test_a_registration_that_fails_says_why(answer: Fetched, why: str) -> None:
    async def ask(*_: object, **__: object) -> Fetched:
        return answer

    known = Metadata(
        authorization_endpoint=f"{ISSUER}/a",
        token_endpoint=f"{ISSUER}/t",
        registration_endpoint=f"{ISSUER}/r",
    )
    with pytest.raises(ProviderFailed, match=why):
        await registration.register(Found(metadata=known), "https://here/callback", Web(ask=ask))


def test_a_secret_is_never_sent_without_encryption() -> None:
    with pytest.raises(BadRequest, match="https"):
        Web().check("token_endpoint", "http://auth.example.com/token")
