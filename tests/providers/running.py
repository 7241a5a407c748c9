"""The provider and the upstream, started for a test."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from tests.upstreams import serving


@dataclass
class OAuthProvider:
    """A running provider, and the origin of an upstream that trusts it."""

    issuer: str
    upstream: str
    http: httpx2.AsyncClient

    @property
    def server_url(self) -> str:
        return f"{self.upstream}/mcp"

    async def set(self, **knobs: Any) -> None:
        """Change how it behaves (`Knobs`)."""
        assert (await self.http.put("/control", json=knobs)).status_code == 200

    async def do(self, action: str, **more: Any) -> None:
        """`revoke` or `expire` everything, `release` or `drop` what is held, `forget_clients`, know a
        `client`."""
        assert (await self.http.put("/control", json={"do": action, **more})).status_code == 200

    async def state(self) -> dict[str, Any]:
        found: dict[str, Any] = (await self.http.get("/control")).json()
        return found

    async def count(self, what: str) -> int:
        return int((await self.state())["counts"].get(what, 0))

    async def allow(self, url: str) -> str:
        """What a browser does that is sent to `url`: where it is sent back to."""
        answer = await self.http.get(url)
        assert answer.status_code == 302, answer.text
        return answer.headers["location"]

    async def accepts(self, access_token: str) -> bool:
        """Whether the upstream takes that token."""
        headers = {"Authorization": f"Bearer {access_token}", "Accept": "application/json, text/event-stream"}
        params = {
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "test", "version": "1"},
        }
        body = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params}
        answer = await self.http.post(self.server_url, json=body, headers=headers)
        assert answer.status_code in {200, 401}, answer.text
        return answer.status_code == 200


@pytest.fixture(scope="session")
def provider_processes() -> Iterator[tuple[str, str]]:
    """The origins of a provider and of an upstream that trusts it, for all tests of the run."""
    with (
        serving("tests.providers.oauth_provider") as issuer,
        serving("tests.providers.mcp_upstream", issuer) as upstream,
    ):
        yield issuer, upstream


@pytest.fixture
async def provider(provider_processes: tuple[str, str]) -> AsyncIterator[OAuthProvider]:
    """The provider, which knows nobody yet and behaves well."""
    async with renewed(*provider_processes) as running:
        yield running


@asynccontextmanager
async def renewed(issuer: str, upstream: str) -> AsyncIterator[OAuthProvider]:
    """The same, for the loop that runs this."""
    async with httpx2.AsyncClient(base_url=issuer, timeout=30) as http:
        running = OAuthProvider(issuer, upstream, http)
        await running.do("reset")
        yield running
