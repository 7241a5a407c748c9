"""People: a scripted browser, and the official MCP client."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
from mcp import Client
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientMetadata
from pydantic import AnyUrl

from tests.token_storage import Tokens

CALLBACK = "http://127.0.0.1:33418/callback"  # nobody listens there: the scripted browser stops before it


class Browser:
    """A person's browser: keeps cookies, says where its requests come from, fills in two forms."""

    def __init__(self, origin: str, http: httpx2.AsyncClient) -> None:
        self.origin, self._http = origin, http

    async def sign_in(self, email: str, password: str) -> httpx2.Response:
        form = {"email": email, "password": password, "next": "/account"}
        response = await self.submit("/login", form)
        assert response.status_code == 303, response.text
        return response

    async def submit(self, path: str, form: dict[str, str]) -> httpx2.Response:
        return await self._http.post(self._at(path), data=form, headers={"sec-fetch-site": "same-origin"})

    async def page(self, path: str) -> httpx2.Response:
        return await self._http.get(self._at(path), headers={"accept": "text/html"})

    async def api(self, method: str, path: str, body: object = None) -> Any:
        """Call an HTTP API with the console's cookie. Returns the decoded answer, which must be good."""
        headers = {"sec-fetch-site": "same-origin"}
        response = await self._http.request(method, self._at(path), json=body, headers=headers)
        assert response.status_code < 300, f"{method} {path}: {response.status_code} {response.text}"
        return response.json()

    async def authorize(self, url: str) -> str:
        """Open an authorization URL, allow it, and return the URL to which the client is sent back."""
        page = await self._http.get(url, headers={"accept": "text/html"})
        assert page.status_code == 200, f"{page.status_code} {page.headers.get('location')} {page.text}"
        assert "Allow" in page.text
        parts = urlsplit(url)
        answer = await self.submit(f"{parts.path}?{parts.query}", {"decision": "allow"})
        assert answer.status_code == 303, answer.text
        location: str = answer.headers["location"]
        return location

    @property
    def cookies(self) -> list[str]:
        """The values of its cookies."""
        return [cookie.value or "" for cookie in self._http.cookies.jar]

    def _at(self, path: str) -> str:
        return path if path.startswith("http") else self.origin + path


@dataclass
class Person:
    """Somebody with an account, a browser and MCP clients."""

    browser: Browser
    transport: httpx2.AsyncBaseTransport | None = None
    email: str = ""
    tokens: Tokens = field(default_factory=Tokens)
    logins: int = 0  # how often a client sent them to the browser
    oauth: OAuthClientProvider | None = None  # of the client made last

    def provider(self, url: str) -> OAuthClientProvider:
        location = ""

        async def open_browser(authorization_url: str) -> None:
            nonlocal location
            self.logins += 1
            location = await self.browser.authorize(authorization_url)

        async def callback() -> AuthorizationCodeResult:
            query = parse_qs(urlsplit(location).query)
            return AuthorizationCodeResult(
                code=query["code"][0], state=query["state"][0], iss=query.get("iss", [None])[0]
            )

        metadata = OAuthClientMetadata(
            client_name="Official client",
            redirect_uris=[AnyUrl(CALLBACK)],
            grant_types=["authorization_code", "refresh_token"],
        )
        return OAuthClientProvider(url, metadata, self.tokens, open_browser, callback)

    @asynccontextmanager
    async def client(self, url: str, mode: str = "auto") -> AsyncIterator[Client]:
        """The official client, given nothing but the server's URL."""
        self.oauth = provider = self.provider(url)
        http = httpx2.AsyncClient(auth=provider, timeout=30, transport=self.transport)
        async with http, Client(streamable_http_client(url, http_client=http), mode=mode) as client:
            yield client

    async def bearer(self, url: str) -> str:
        """An access token for the server at `url`, got the way every client gets one."""
        async with self.client(url):
            assert self.tokens.tokens
            return self.tokens.tokens.access_token
