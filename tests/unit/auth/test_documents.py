"""Clients whose id is the URL of a document about them (CIMD)."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from libs.common.fetching import CannotFetch, fetch, is_public
from services.auth.app import create_app
from services.auth.settings import AuthSettings
from tests.unit.auth.house import REDIRECT, Browser, Client, House, query


@dataclass
class Site:
    """A web site that serves one document, by a few lines of HTTP."""

    document: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    status: str = "200 OK"
    asked: int = 0
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/client.json"

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.asked += 1
        described = {
            "client_id": self.url,
            "client_name": "Documented",
            "redirect_uris": [REDIRECT],
            "token_endpoint_auth_method": "none",
        }
        body = json.dumps(described if self.document is None else described | self.document).encode()
        headers = {"content-length": str(len(body)), "connection": "close", **self.headers}
        lines = [f"HTTP/1.1 {self.status}", *(f"{name}: {value}" for name, value in headers.items())]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        await writer.drain()
        writer.close()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    site = Site()
    server = await asyncio.start_server(site.answer, "127.0.0.1", 0)
    site.port = server.sockets[0].getsockname()[1]
    async with server:
        yield site


@pytest.fixture
async def house(settings: AuthSettings) -> AsyncIterator[House]:
    """A service that may read documents on this machine, where the test's are."""
    settings = settings.model_copy(update={"auth_private_client_documents": True})
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        house = House(app, settings)
        yield house
        await house.close()


@pytest.fixture
def client(house: House, site: Site) -> Client:
    return Client(house.http(), site.url)


async def test_a_client_needs_no_registration(house: House, browser: Browser, client: Client) -> None:
    page = await browser.get(client.authorize_url())
    assert "Documented" in page.text
    tokens = await client.connect(browser)
    assert house.claims(tokens["access_token"]).client_id == client.id
    assert (await client.refresh(tokens["refresh_token"])).status_code == 200


async def test_the_metadata_says_so(house: House) -> None:
    metadata = (await house.http().get("/.well-known/oauth-authorization-server")).json()
    assert metadata["client_id_metadata_document_supported"] is True


async def test_switched_off_they_are_not_offered_and_not_read(settings: AuthSettings, site: Site) -> None:
    app = create_app(settings.model_copy(update={"auth_client_documents": "off"}))
    async with app.router.lifespan_context(app):
        house = House(app, settings)
        metadata = (await house.http().get("/.well-known/oauth-authorization-server")).json()
        assert metadata["client_id_metadata_document_supported"] is False
        browser = await house.signed_in()
        page = await browser.get(Client(house.http(), site.url).authorize_url())
        assert (page.status_code, site.asked) == (400, 0)
        await house.close()


async def test_consent_names_the_host_that_describes_the_client(browser: Browser, client: Client) -> None:
    page = await browser.get(client.authorize_url())
    assert "Described by</dt><dd><strong>127.0.0.1</strong>" in page.text


async def test_nothing_is_fetched_for_somebody_who_is_not_signed_in(
    house: House, site: Site, client: Client
) -> None:
    answer = await house.browser().get(client.authorize_url())
    assert answer.headers["location"].startswith("/login")
    assert site.asked == 0


async def test_a_document_is_not_fetched_again_while_it_is_fresh(
    site: Site, browser: Browser, client: Client
) -> None:
    site.headers = {"cache-control": "max-age=3600"}
    for _ in range(3):
        assert (await browser.get(client.authorize_url())).status_code == 200
    assert site.asked == 1


async def test_a_stale_document_is_fetched_anew_and_what_it_says_now_counts(
    house: House, site: Site, browser: Browser, client: Client
) -> None:
    await browser.get(client.authorize_url())
    house.age("clients", "fresh_until", 120)
    site.document = {"redirect_uris": ["https://elsewhere.example/cb"]}
    page = await browser.get(client.authorize_url())
    assert page.status_code == 400
    assert "redirect URI" in page.text


async def test_a_client_whose_site_is_down_can_still_refresh_and_for_a_day_connect(
    house: House, site: Site, browser: Browser, client: Client
) -> None:
    tokens = await client.connect(browser)
    site.status = "500 Internal Server Error"
    house.age("clients", "fresh_until", 12 * 3600)
    assert (await client.refresh(tokens["refresh_token"])).status_code == 200
    assert (await browser.get(client.authorize_url())).status_code == 200
    house.age("clients", "fresh_until", 24 * 3600)
    assert (await browser.get(client.authorize_url())).status_code == 400


@pytest.mark.parametrize(
    ("document", "why"),
    [
        ({"client_id": "https://other.example/client.json"}, "its client_id is not the URL at which it lies"),
        ({"redirect_uris": []}, "redirect_uris"),
        ({"redirect_uris": ["http://evil.example/cb"]}, "cannot be used"),
        ({"redirect_uris": ["javascript:alert(1)"]}, "its scheme is not allowed"),
        ({"client_secret": "s"}, "client_secret"),
        ({"token_endpoint_auth_method": "client_secret_basic"}, "authenticate by a key"),
        ({"grant_types": ["client_credentials"]}, "authorization code grant"),
        ({"padding": "x" * 20_000}, "more than 10240 bytes"),
    ],
)
async def test_a_document_that_is_not_right_is_refused_with_the_reason(
    site: Site, browser: Browser, client: Client, document: dict[str, Any], why: str
) -> None:
    site.document = document
    page = await browser.get(client.authorize_url())
    assert page.status_code == 400
    assert why in page.text


async def test_a_redirect_is_not_followed(site: Site, browser: Browser, client: Client) -> None:
    site.status, site.headers = "302 Found", {"location": "http://127.0.0.1:1/"}
    page = await browser.get(client.authorize_url())
    assert (page.status_code, site.asked) == (400, 1)
    assert "HTTP status 302" in page.text


async def test_a_site_that_fails_is_not_asked_again_at_once(
    site: Site, browser: Browser, client: Client
) -> None:
    site.status = "404 Not Found"
    for _ in range(3):
        assert (await browser.get(client.authorize_url())).status_code == 400
    assert site.asked == 1


async def test_a_code_goes_only_to_a_redirect_uri_of_the_document(browser: Browser, client: Client) -> None:
    page = await browser.get(client.authorize_url(redirect_uri="https://evil.example/cb"))
    assert page.status_code == 400
    denied = await browser.post(client.authorize_url(), {"decision": "deny"})
    assert query(denied)["error"] == "access_denied"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "169.254.169.254"])
async def test_addresses_that_are_not_public_are_not_asked(site: Site, host: str) -> None:
    with pytest.raises(CannotFetch, match="not on the open internet"):
        await fetch(f"http://{host}:{site.port}/client.json", 1000)
    assert site.asked == 0


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.215.14", True),
        ("2606:2800:21f:cb07::1", True),
        ("10.1.2.3", False),
        ("100.64.0.1", False),
        ("224.0.0.1", False),
        ("0.0.0.0", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:93.184.215.14", False),
        ("64:ff9b::7f00:1", False),
        ("2002:7f00:1::", False),
    ],
)
def test_only_addresses_of_the_open_internet_are_public(address: str, public: bool) -> None:
    assert is_public(address) is public


@pytest.mark.parametrize(
    "client_id",
    [
        "http://app.example/client.json",
        "https://app.example",
        "https://app.example/",
        "https://user@app.example/c",
        "https://app.example/a/../c",
        "https://app.example/c#f",
        "https://app.example:x/c",
        "not-a-url",
    ],
)
async def test_other_ids_are_looked_up_among_the_registered(settings: AuthSettings, client_id: str) -> None:
    documents = create_app(settings).state.parts.documents
    assert not documents.is_document(client_id)
    assert documents.is_document("https://app.example/client.json")
