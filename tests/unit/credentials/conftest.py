"""The credentials service, running, and somebody on the bus who asks it."""

import base64
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
from fastapi import FastAPI

from libs.common.control.entries import ORGANIZATION, Server
from libs.common.requests import (
    OPEN_CREDENTIAL,
    Injection,
    OpenCredential,
    SealedCredential,
    credential_context,
)
from libs.common.sealed import Opener
from services.credentials.app import MIGRATIONS, create_app
from services.credentials.settings import CredentialsSettings
from tests.conftest import Nats
from tests.providers.running import provider, provider_processes
from tests.unit.conftest import IN_BROWSER, ControlLog, Migrated, Person, Serve, SignIn

__all__ = ["provider", "provider_processes"]

LEASE = 1.0  # seconds; short, so that tests of expiry are


@pytest.fixture
async def ada(sign_in: SignIn) -> Person:
    """A member. She has to sign in before the service starts."""
    return await sign_in("member", "ada")


@pytest.fixture
async def admin(sign_in: SignIn) -> Person:
    return await sign_in("admin", "root")


def master_key() -> str:
    """A new master key as the setting takes it."""
    return base64.b64encode(secrets.token_bytes(32)).decode()


@pytest.fixture
def settings(nats: Nats, tmp_path: Path, migrated: Migrated) -> CredentialsSettings:
    migrated(MIGRATIONS, tmp_path / "data" / "credentials.db")
    return CredentialsSettings(
        nats_url=nats.url, data_dir=tmp_path / "data", lease=LEASE, credentials_master_key=master_key()
    )


@dataclass
class Vault:
    """A running credentials service; `api` is an administrator's script, `browser` their browser."""

    app: FastAPI
    api: httpx2.AsyncClient
    browser: httpx2.AsyncClient
    admin: Person
    control: ControlLog

    async def store(
        self, key: str, slug: str = "wiki", header: str = "X-Api-Key", **more: Any
    ) -> dict[str, Any]:
        """Store the organization's key for a server."""
        body = {"header": header, "key": key} | more
        answer = await self.api.put(f"/api/credentials/{slug}/organization", json=body)
        assert answer.status_code == 200, answer.text
        result: dict[str, Any] = answer.json()
        return result

    async def move(self, url: str | None, slug: str = "wiki") -> None:
        """Give the server another URL, or delete it; return when the service knows."""
        follower = self.app.state.follower
        if url is None:
            revision = await self.control.remove(f"server.{slug}")
        else:
            revision = await self.control.put(server(slug, url=url))
        await follower.wait_for(lambda: follower.applied >= revision, timeout=5)

    async def know(self, entry: Server) -> None:
        """Write a server into the control log; return when the service knows."""
        revision, follower = await self.control.put(entry), self.app.state.follower
        await follower.wait_for(lambda: follower.applied >= revision, timeout=5)

    async def open(self, slug: str = "wiki", **more: str) -> dict[str, str]:
        """The headers that a gateway gets for the server. Raises what the bus raises."""
        return (await self.inject(slug, **more)).headers

    async def inject(self, slug: str = "wiki", user: str = ORGANIZATION, **more: str) -> Injection:
        """What a gateway gets for the server and that user. Raises what the bus raises."""
        opener = Opener()
        query = OpenCredential(slug=slug, user=user, public_key=opener.public_key, **more)
        sealed = await self.control.bus.request(OPEN_CREDENTIAL, query, SealedCredential)
        context = credential_context(slug, user, sealed.version)
        return msgspec.json.decode(opener.open(sealed.box, context), type=Injection)


def server(slug: str = "wiki", auth: Any = "api_key", url: str = "") -> Server:
    """A server as policy writes it into the control log."""
    url = url or f"https://{slug}.example.com/mcp"
    return Server(version=1, slug=slug, name=slug.title(), url=url, auth=auth)


def command(*parts: str, slug: str = "tools", **more: Any) -> Server:
    """A stdio server as policy writes it into the control log."""
    return Server(
        version=1,
        slug=slug,
        name=slug.title(),
        transport="stdio",
        command=list(parts or ("npx", "-y", "a b")),
        auth="api_key",
        **more,
    )


@pytest.fixture
async def vault(
    settings: CredentialsSettings, control: ControlLog, sign_in: SignIn, serve: Serve
) -> AsyncIterator[Vault]:
    admin = await sign_in("admin", "ada")
    await control.put(server())
    app = create_app(settings)
    api = await serve(app)
    api.headers.update(admin.script)
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(
        transport=transport, base_url=settings.public_url, headers=IN_BROWSER, cookies=admin.cookies
    ) as browser:
        yield Vault(app, api, browser, admin, control)
