"""Secrets stay where they belong: nothing that Lockgate sends over NATS, logs or stores has one in plain.

Five services live through it all: people connect, call, are refreshed and cut off; keys go into headers, the
query and the environment of a process; upstreams repeat whatever they are sent. Everything that went through
a relay before NATS, and every file that is left, is then searched, by spellings that others would use too.
"""

import asyncio
import base64
import json
import secrets
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from mcp import MCPError

from tests.conftest import Nats, eventually
from tests.e2e.by_hand import unwrapped
from tests.e2e.capture import Capture
from tests.e2e.fleets import NAMES, Fleet, started_fleet
from tests.e2e.guarded import Forms, Guarded, text
from tests.e2e.indiscreet import digest
from tests.e2e.leaks import Haystack, Leak, clickhouse, databases, files, search
from tests.e2e.people import Person
from tests.providers.running import OAuthProvider, provider, provider_processes
from tests.upstreams import serving

__all__ = ["provider", "provider_processes"]

ROOT = Path(__file__).parents[2]


def invented() -> str:
    """A password with characters that every format writes differently."""
    return f"p:/\"\\+&%<'{secrets.token_hex(8)}>"


@dataclass
class Life:
    """What happens in a Lockgate, and the secrets that it sees: names and values."""

    fleet: Fleet
    guarded: Guarded
    secrets: dict[str, bytes]
    pages: list[Haystack] = field(default_factory=list)
    canary: str = field(default_factory=lambda: f"not secret {secrets.token_hex(8)}")

    async def run(self, indiscreet: str) -> None:
        gate, guarded = self.fleet.gate, self.guarded
        await guarded.register()
        mia = await gate.member()
        self.keep("password", "a long password of mia")
        await self._connect(mia)
        assert await guarded.echo(mia, self.canary) == f"Echo: {self.canary}"
        await self._reveal_token(mia)
        await self._refresh(mia)
        await self._reveal_key(mia, indiscreet)
        await self._reveal_variable(mia)
        await self._revoke(mia)
        await self._connect(mia, "Reconnect")
        await self._reveal_token(mia)
        await self._look_at_pages(mia, "/credentials", guarded.page, "/credentials/servers/wiki")
        await guarded.disconnect(mia)
        for person in (mia, await gate.administrator()):
            self.keep_all("cookie", person.browser.cookies)
        admin = await gate.administrator()
        await self._look_at_pages(admin, "/servers/tools", "/credentials", "/api/credentials", "/activity")
        await gate.recorded(2, server=guarded.slug, tool="reveal")
        await self._keep_tokens(mia)

    def keep(self, name: str, secret: str) -> None:
        self.secrets[name] = secret.encode()

    def keep_all(self, name: str, found: list[str]) -> None:
        for secret in found:
            self.keep(f"{name} {len(self.secrets)}", secret)

    async def _connect(self, person: Person, button: str = "Connect") -> None:
        back, _ = await self.guarded.connect(person, button)
        answer = parse_qs(urlsplit(back).query)
        self.keep_all("authorization code", answer["code"])
        self.keep_all("state", answer["state"])
        await self._keep_tokens(person)

    async def _keep_tokens(self, person: Person) -> None:
        state = await self.guarded.provider.state()
        self.keep_all("of the provider", state["secrets"])
        self.keep_all("client secret", [client["client_secret"] for client in state["clients"]])
        if tokens := person.tokens.tokens:
            assert tokens.refresh_token
            self.keep_all("token of Lockgate", [tokens.access_token, tokens.refresh_token])

    async def _reveal_token(self, person: Person) -> None:
        async with person.client(self.guarded.url) as client:
            told = text(await client.call_tool("reveal", {}))
        assert told.startswith("You sent ***"), "the caller does not see it either"
        await self._keep_tokens(person)

    async def _refresh(self, person: Person) -> None:
        await self.guarded.provider.do("expire")
        assert await self.guarded.echo(person, "after it expired")
        assert await self.guarded.provider.count("refreshes") == 1
        await self._keep_tokens(person)

    async def _reveal_key(self, person: Person, upstream: str) -> None:
        """A key of several fields, in a header, in another as Basic, and in the query."""
        admin, password, token = self.fleet.gate.admin, invented(), secrets.token_urlsafe(24)
        self.keep("password at a server", password)
        self.keep("key at a server", token)
        self.keep("Basic", base64.b64encode(f"mia:{password}".encode()).decode())
        server = {"name": "Wiki", "url": upstream, "auth": "api_key", "default_access": "allow"}
        await admin.api("PUT", "/api/policy/servers/wiki", server)
        placements = [
            {"into": "header", "name": "Authorization", "template": "Basic {base64:user:password}"},
            {"into": "header", "name": "X-Password", "template": "{password}"},
            {"into": "query", "name": "token", "template": "{token}"},
        ]
        names = ("user", "password", "token")
        layout = {"fields": [{"name": name} for name in names], "placements": placements}
        await admin.api("PUT", "/api/credentials/servers/wiki/fields", layout)
        page = await person.browser.page("/credentials/servers/wiki")
        action, fields = Forms(page.text).named("Store")
        fields |= {"value.user": "mia", "value.password": password, "value.token": token}
        assert (await person.browser.submit(action, fields)).status_code == 303
        digests = await self._digests(person, "wiki")
        basic = f"Basic {self.secrets['Basic'].decode()}"
        assert {digest(basic), digest(password), digest(token)} <= digests

    async def _reveal_variable(self, person: Person) -> None:
        """The organization's key, in the environment of a process that logs it."""
        admin, key = self.fleet.gate.admin, secrets.token_urlsafe(24)
        self.keep("key of a command", key)
        command = [sys.executable, "-m", "tests.e2e.indiscreet"]
        server = {
            "name": "Tools", "transport": "stdio", "command": command, "auth": "api_key",
            "environment": {"PYTHONPATH": str(ROOT)}, "default_access": "allow",
        }  # fmt: skip
        await admin.api("PUT", "/api/policy/servers/tools", server)
        stored = {"environment": "INDISCREET_KEY", "template": "{key}", "key": key}
        await admin.api("PUT", "/api/credentials/tools/organization", stored)
        assert digest(key) in await self._digests(person, "tools")

    async def _look_at_pages(self, person: Person, *paths: str) -> None:
        for path in paths:
            page = await person.browser.page(path)
            assert page.status_code == 200, page.text
            self.pages.append((f"the page {path}", page.content))

    async def _digests(self, person: Person, slug: str) -> set[str]:
        """Of what the server was sent."""
        async with person.client(self.fleet.gate.server(slug)) as client:
            told = json.loads(text(await client.call_tool("reveal", {})))
        await self._keep_tokens(person)
        return set(told["digests"])

    async def _revoke(self, person: Person) -> None:
        await self.guarded.provider.do("revoke")
        with pytest.raises(MCPError), unwrapped():
            await self.guarded.echo(person, "after it was revoked")


@pytest.fixture
def indiscreet() -> Iterator[str]:
    with serving("tests.e2e.indiscreet") as origin:
        yield f"{origin}/mcp"


@pytest.mark.timeout(240)
async def test_nothing_that_is_sent_logged_or_stored_has_a_secret_in_plain_text(
    nats: Nats, tmp_path: Path, provider: OAuthProvider, indiscreet: str
) -> None:
    keys = {name: secrets.token_bytes(32) for name in ("credentials_master_key", "gateway_session_key")}
    settings = {name: base64.b64encode(key).decode() for name, key in keys.items()}
    settings |= {"credentials_private_providers": "true", "gateway_stdio": "on", "log_level": "debug"}
    directory, capture = tmp_path / "lockgate", Capture(nats.port)
    directory.mkdir()
    await capture.start()
    try:
        async with started_fleet(capture.url, directory, **settings) as fleet:
            life = Life(fleet, Guarded(fleet.gate, provider), keys)
            await life.run(indiscreet)
            await eventually(lambda: any(b"credential_deleted" in said for _, said in capture.heard()))
            # Files as they are in use; the relay goes on meanwhile.
            leaks = await asyncio.to_thread(search, life.secrets, files(directory))
            await asyncio.gather(*(asyncio.to_thread(each.stop) for each in fleet.services.values()))
    finally:
        await capture.stop()
    nats.stop()
    everything = [
        *life.pages, *capture.heard(), *files(directory), *files(nats.directory), *databases(directory),
        clickhouse(directory / "data" / "clickhouse"),
    ]  # fmt: skip
    leaks += search(life.secrets, iter(everything))
    assert leaks == [], "\n".join(map(str, leaks))
    seen = places(search({"canary": life.canary.encode()}, iter(everything)))
    assert {"what was sent to NATS", "what was sent from NATS", "ClickHouse"} <= seen, seen
    assert any(place.startswith("the file jetstream/") for place in seen), "its files were looked into"
    assert "the database auth.db" in places(search({"email": b"mia@example.com"}, databases(directory)))
    ended = places(search({"last words": b"Finished server process"}, files(directory)))
    assert ended == {f"the file {name}.log" for name in NAMES}
    said = places(search({"what the command wrote": b"I was sent ***"}, iter(life.pages)))
    assert said == {"the page /servers/tools"}
    print(f"\n{len(life.secrets)} secrets, {sum(len(found) for _, found in everything):,} bytes")


def places(found: list[Leak]) -> set[str]:
    return {leak.where.partition(",")[0] for leak in found}
