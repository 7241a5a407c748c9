"""A running auth service, people with browsers, and OAuth clients: what the tests are told with."""

import base64
import hashlib
import secrets
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx2
import msgspec
from fastapi import FastAPI
from sqlalchemy import text

from libs.common.journal import Journal
from libs.common.records import AdminEvent, AuthEvent
from libs.common.tokens import Claims, Verifier
from services.auth.parts import Parts
from services.auth.settings import AuthSettings

ORIGIN = "http://127.0.0.1:8080"
EMAIL, PASSWORD = "admin@example.com", "correct horse battery"
REDIRECT = "http://127.0.0.1:33418/callback"
SERVER = f"{ORIGIN}/mcp/demo"
SAME_ORIGIN = {"Sec-Fetch-Site": "same-origin", "Accept": "text/html"}

Params = dict[str, str | list[str]]


def query(response: httpx2.Response) -> dict[str, str]:
    """The query of where a response redirects to."""
    return {
        name: values[-1] for name, values in parse_qs(urlsplit(response.headers["location"]).query).items()
    }


@dataclass
class Browser:
    """One browser: cookies, and the headers that browsers send."""

    http: httpx2.AsyncClient

    async def get(self, url: str, **headers: str) -> httpx2.Response:
        return await self.http.get(url, headers={"Accept": "text/html", **headers})

    async def post(
        self, url: str, data: dict[str, str] | None = None, headers: dict[str, str] | None = None
    ) -> httpx2.Response:
        return await self.http.post(url, data=data or {}, headers=SAME_ORIGIN if headers is None else headers)

    async def sign_in(
        self, email: str = EMAIL, password: str = PASSWORD, next: str = "/account"
    ) -> httpx2.Response:
        return await self.post("/login", {"email": email, "password": password, "next": next})


@dataclass
class Client:
    """A registered public client, with PKCE."""

    http: httpx2.AsyncClient
    id: str
    verifier: str = field(default_factory=lambda: secrets.token_urlsafe(48))
    secret: str = ""

    @property
    def challenge(self) -> str:
        digest = hashlib.sha256(self.verifier.encode()).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()

    def authorize_url(self, **changes: str | list[str] | None) -> str:
        """The authorization request; a change of None leaves the parameter out."""
        params: dict[str, Any] = {
            "response_type": "code",
            "client_id": self.id,
            "redirect_uri": REDIRECT,
            "state": "a state",
            "scope": "mcp offline_access",
            "resource": SERVER,
            "code_challenge": self.challenge,
            "code_challenge_method": "S256",
            **changes,
        }
        given = {name: value for name, value in params.items() if value is not None}
        return f"/oauth/authorize?{urlencode(given, doseq=True)}"

    async def consent(self, browser: Browser, **changes: str | list[str] | None) -> str:
        """The code that the person of `browser` hands out."""
        answer = await browser.post(self.authorize_url(**changes), {"decision": "allow"})
        assert answer.status_code == 303, answer.text
        return query(answer)["code"]

    async def token(self, **params: str | list[str] | None) -> httpx2.Response:
        given = {"client_id": self.id, **params}
        return await self.http.post("/oauth/token", data={k: v for k, v in given.items() if v is not None})

    async def exchange(self, code: str, **changes: str | list[str] | None) -> httpx2.Response:
        params: dict[str, str | list[str] | None] = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": REDIRECT,
            "code_verifier": self.verifier,
            "resource": SERVER,
            **changes,
        }
        return await self.token(**params)

    async def refresh(self, refresh_token: str, **changes: str | list[str] | None) -> httpx2.Response:
        return await self.token(grant_type="refresh_token", refresh_token=refresh_token, **changes)

    async def connect(self, browser: Browser, **changes: str | list[str] | None) -> dict[str, Any]:
        """Consent and exchange: the token response."""
        answer = await self.exchange(await self.consent(browser, **changes), resource=None)
        assert answer.status_code == 200, answer.text
        tokens: dict[str, Any] = answer.json()
        return tokens


@dataclass
class House:
    """The running service."""

    app: FastAPI
    settings: AuthSettings
    _open: list[httpx2.AsyncClient] = field(default_factory=list)

    @property
    def parts(self) -> Parts:
        parts: Parts = self.app.state.parts
        return parts

    def http(self, address: str = "127.0.0.1") -> httpx2.AsyncClient:
        transport = httpx2.ASGITransport(self.app, client=(address, 50000))
        client = httpx2.AsyncClient(transport=transport, base_url=self.settings.public_url)
        self._open.append(client)
        return client

    async def close(self) -> None:
        for client in self._open:
            await client.aclose()

    def browser(self, address: str = "127.0.0.1") -> Browser:
        return Browser(self.http(address))

    async def signed_in(self, email: str = EMAIL, password: str = PASSWORD) -> Browser:
        browser = self.browser()
        answer = await browser.sign_in(email, password)
        assert answer.status_code == 303, answer.text
        return browser

    async def client(self, **metadata: Any) -> Client:
        """A newly registered client."""
        asked = {"client_name": "Test client", "redirect_uris": [REDIRECT], **metadata}
        answer = await self.http().post("/oauth/register", json=asked)
        assert answer.status_code == 201, answer.text
        body = answer.json()
        return Client(self.http(), body["client_id"], secret=body.get("client_secret", ""))

    async def add_user(
        self, email: str, role: str = "member", password: str = "another long password"
    ) -> dict[str, Any]:
        admin = await self.signed_in()
        new = {"email": email, "role": role, "password": password, "name": email.partition("@")[0].title()}
        answer = await admin.http.post("/api/auth/users", json=new, headers=SAME_ORIGIN)
        assert answer.status_code == 200, answer.text
        user: dict[str, Any] = answer.json()
        return user

    def claims(self, access_token: str, audience: str = SERVER) -> Claims:
        """The token as the gateway sees it, by the control log alone. Raises `InvalidToken`."""
        tables = self.app.state.follower.tables
        return Verifier(tables, self.settings.public_url).verify(access_token, audience)

    def events(self, kind: type[AuthEvent] | type[AdminEvent] = AuthEvent) -> list[Any]:
        """What was recorded, oldest first."""
        journal: Journal = self.app.state.journal
        lines, _ = journal.read(journal.begin(), 10_000_000)
        table = "auth_events" if kind is AuthEvent else "admin_events"
        return [msgspec.json.decode(line.data, type=kind) for line in lines if line.table == table]

    def event(self, name: str) -> AuthEvent:
        """The newest record of this kind."""
        found: AuthEvent = [event for event in self.events() if event.event == name][-1]
        return found

    def age(self, table: str, column: str, seconds: int) -> None:
        """Make what the database says happened `seconds` ago."""
        with self.parts.store.database.engine.begin() as connection:
            connection.execute(text(f"UPDATE {table} SET {column} = {column} - {seconds}"))
