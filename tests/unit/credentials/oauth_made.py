"""A credentials service before a real provider and upstream, and people who connect."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from html import unescape
from typing import Any

import httpx2
from fastapi import FastAPI

from libs.common.control.entries import Group, Server, ServerAccess
from libs.common.requests import REFRESH_CREDENTIAL, Injection, RefreshCredential, RefreshedCredential
from services.credentials.app import create_app
from services.credentials.settings import CredentialsSettings
from tests.providers.running import OAuthProvider
from tests.unit.conftest import ControlLog, Person
from tests.unit.credentials.conftest import Vault

SLUG = "guarded"
REDIRECT = "http://127.0.0.1:8080/credentials/callback"


def guarded(provider: OAuthProvider, **more: Any) -> Server:
    """The upstream as policy writes it into the control log."""
    usual = {"url": provider.server_url, "auth": "oauth"}
    return Server(version=1, slug=SLUG, name="Guarded", **usual | more)


@dataclass
class House:
    """The service, and the provider that people connect to. `people` have their browsers in `browsers`."""

    app: FastAPI
    provider: OAuthProvider
    control: ControlLog
    settings: CredentialsSettings
    browsers: dict[str, httpx2.AsyncClient] = field(default_factory=dict)

    async def leave(self, person: Person, **form: str) -> str:
        """Press "Connect". Returns where the browser is sent."""
        answer = await self.post(person, f"/credentials/servers/{SLUG}/connect", form)
        assert answer.status_code == 200, answer.text
        url = answer.headers["refresh"].removeprefix("0; url=")
        link = re.search(r'href="([^"]+)" rel="noreferrer"', answer.text)
        assert link
        assert unescape(link[1]) == url
        return url

    async def connect(self, person: Person, **form: str) -> httpx2.Response:
        """Connect, allow it at the provider, and come back."""
        back = await self.provider.allow(await self.leave(person, **form))
        assert back.startswith(REDIRECT)
        return await self.get(person, back)

    async def get(self, person: Person, url: str) -> httpx2.Response:
        return await self._browser(person).get(url, headers=person.browser)

    async def post(self, person: Person, url: str, form: dict[str, str]) -> httpx2.Response:
        return await self._browser(person).post(url, data=form, headers=person.browser)

    async def api(self, person: Person, method: str, path: str, body: object = None) -> httpx2.Response:
        return await self._browser(person).request(method, path, json=body, headers=person.script)

    def _browser(self, person: Person) -> httpx2.AsyncClient:
        return self.browsers[person.user.id]

    async def mine(self, person: Person) -> dict[str, Any]:
        """How the server stands for that person."""
        (standing,) = (await self.api(person, "GET", "/api/credentials/mine")).json()["items"]
        found: dict[str, Any] = standing
        return found

    async def injection(self, person: Person) -> Injection:
        """What a gateway gets for that person's calls."""
        vault = Vault(self.app, None, None, person, self.control)  # type: ignore[arg-type]
        return await vault.inject(SLUG, user=person.user.id)

    async def token(self, person: Person) -> str:
        """The access token in it."""
        return (await self.injection(person)).headers["authorization"].removeprefix("Bearer ")

    async def entry(self, person: Person) -> dict[str, Any]:
        """What the control log says of that person's credential."""
        found = await self.control.get(f"credential.{SLUG}.{person.user.id}")
        assert found
        return found

    async def refresh(self, person: Person, seen: int = -1) -> int:
        """A gateway asks for something newer than `seen`, or than what the log says."""
        version = seen if seen >= 0 else (await self.entry(person))["version"]
        query = RefreshCredential(slug=SLUG, user=person.user.id, version=version)
        answer = await self.control.bus.request(REFRESH_CREDENTIAL, query, RefreshedCredential, timeout=30)
        return answer.version


@asynccontextmanager
async def opened(
    settings: CredentialsSettings, provider: OAuthProvider, control: ControlLog, *people: Person
) -> AsyncIterator[House]:
    """The service, running."""
    access = {SLUG: ServerAccess()}
    await control.put(Group(version=1, id="default", name="Everyone", servers=access))
    await control.put(guarded(provider))
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        browsers = {
            person.user.id: httpx2.AsyncClient(
                transport=httpx2.ASGITransport(app), base_url=settings.public_url
            )
            for person in people
        }
        yield House(app, provider, control, settings, browsers)
        for browser in browsers.values():
            await browser.aclose()
