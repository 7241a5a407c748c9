"""Other people's clients: from a server's URL to a call and, when their token has expired, a refresh.

Each gets the URL and a desktop with a browser. The first call sends the person there, no other does.
"""

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
import pytest_asyncio
from mcp import Client
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientMetadata
from pydantic import AnyUrl

from libs.common.tokens import LEEWAY
from tests import npm
from tests.conftest import free_port
from tests.e2e.client_document import Site, client_site
from tests.e2e.conftest import CALLBACK, Gate, Person, started
from tests.e2e.desktop import Desktop, desktop
from tests.matrix.browser import watched_errors
from tests.npm import packages
from tests.token_storage import Tokens

__all__ = ["packages"]

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(npm.INSTALL_WITHIN + 120)]

LIFETIME = 5  # seconds of an access token
EXPIRED = LIFETIME + LEEWAY + 1  # after so long a gateway refuses it
VISIT_WITHIN = 90.0


@dataclass(frozen=True)
class Visit:
    """Two calls to the server at `url`, `EXPIRED` seconds apart."""

    url: str
    desktop: Desktop
    site: Site
    packages: Callable[[], npm.Packages]

    @property
    def person(self) -> Person:
        return self.desktop.person


# -- the clients: each returns what its two calls found ----------------------------------------------


async def _official(visit: Visit, document: str | None) -> list[str]:
    location = ""

    async def open_browser(url: str) -> None:
        nonlocal location
        location = await visit.person.browser.authorize(url)

    async def callback() -> AuthorizationCodeResult:
        query = parse_qs(urlsplit(location).query)
        return AuthorizationCodeResult(code=query["code"][0], state=query["state"][0], iss=query["iss"][0])

    metadata = OAuthClientMetadata(client_name="mcp", redirect_uris=[AnyUrl(CALLBACK)])
    provider = OAuthClientProvider(
        visit.url, metadata, Tokens(), open_browser, callback, client_metadata_url=document
    )
    async with (
        httpx2.AsyncClient(auth=provider, timeout=30) as http,
        Client(streamable_http_client(visit.url, http_client=http)) as client,
    ):
        return await _call_twice(client)


async def mcp_registered(visit: Visit) -> list[str]:
    """The Python SDK, by dynamic registration."""
    return await _official(visit, None)


async def mcp_by_document(visit: Visit) -> list[str]:
    """The Python SDK, by the document that its id leads to."""
    visit.site.document = {
        "client_name": "mcp",
        "redirect_uris": [CALLBACK],
        "token_endpoint_auth_method": "none",
    }
    found = await _official(visit, visit.site.url)
    assert visit.site.asked, "its document was read"
    return found


async def fastmcp(visit: Visit) -> list[str]:
    if find_spec("fastmcp") is None:
        pytest.skip("fastmcp is not installed")
    command = [sys.executable, "-W", "ignore", "-m", "tests.e2e.fastmcp_client", visit.url, str(EXPIRED)]
    return (await _run(command, visit.desktop.environment())).splitlines()


async def mcp_remote(visit: Visit) -> list[str]:
    packages = visit.packages()
    node, *arguments = packages.command("mcp-remote", visit.url, str(free_port()))
    environment = visit.desktop.environment(packages, BROWSER="true")  # it prints the URL too
    server = StdioServerParameters(command=node, args=arguments, env=environment)
    async with (
        watched_errors(visit.person.browser) as errors,
        Client(stdio_client(server, errors), mode="legacy") as client,
    ):
        return await _call_twice(client)


async def mcporter(visit: Visit) -> list[str]:
    config = visit.desktop.home / "mcporter.json"
    # At a fixed port: with another redirect URI in each run it registers anew, and has no use for its tokens.
    redirect = f"http://127.0.0.1:{free_port()}/callback"
    server = {"baseUrl": visit.url, "auth": "oauth", "oauthRedirectUrl": redirect}
    config.write_text(json.dumps({"mcpServers": {"demo": server}}))
    packages = visit.packages()
    environment = visit.desktop.environment(packages)

    async def call(text: str) -> str:
        arguments = ["call", "demo.word_count", f"text={text}", "--output", "raw"]
        command = packages.command("mcporter", "--config", str(config), *arguments)
        return await _run(command, environment)

    await _run(packages.command("mcporter", "--config", str(config), "auth", "demo"), environment)
    return await _twice(call)


async def inspector(visit: Visit) -> list[str]:
    packages = visit.packages()
    keeps = {"MCP_INSPECTOR_SECRET_STORE": "file"}  # there is no keyring
    environment = visit.desktop.environment(packages, MCP_AUTO_OPEN_ENABLED="true", **keeps)
    callback = f"http://127.0.0.1:{free_port()}/oauth/callback"

    async def call(text: str) -> str:
        options = ["--transport", "http", "--format", "json", "--callback-url", callback]
        options += ["--method", "tools/call", "--tool-name", "word_count"]
        options += ["--tool-args-json", json.dumps({"text": text})]
        answer = await _run(packages.command("mcp-inspector", "--cli", visit.url, *options), environment)
        text_found: str = json.loads(answer)["result"]["content"][0]["text"]
        return text_found

    return await _twice(call)


CLIENTS = (mcp_registered, mcp_by_document, fastmcp, mcp_remote, mcporter, inspector)


async def _call_twice(client: Client) -> list[str]:
    async def call(text: str) -> str:
        (content,) = (await client.call_tool("word_count", {"text": text})).content
        found: str = getattr(content, "text", "")
        return found

    return await _twice(call)


async def _twice(call: Callable[[str], Awaitable[str]]) -> list[str]:
    first = await call("one two three")
    await asyncio.sleep(EXPIRED)
    return [first, await call("four five")]


async def _run(command: list[str], environment: dict[str, str]) -> str:
    """What a program prints on standard output."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, f"{output.decode()}\n{errors.decode()}"
    return output.decode()


# -- the test ------------------------------------------------------------------------------------------


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with client_site(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gate(site: Site, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Gate]:
    variables = {
        "LOCKGATE_AUTH_ACCESS_LIFETIME": str(LIFETIME),
        "LOCKGATE_AUTH_PRIVATE_CLIENT_DOCUMENTS": "true",
        "SSL_CERT_FILE": str(site.certificate),
    }
    async with started(tmp_path_factory.mktemp("gate"), variables=variables) as gate:
        yield gate


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def visits(
    request: pytest.FixtureRequest, gate: Gate, site: Site, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[dict[str, "asyncio.Task[list[str]]"]]:
    """What the calls of each client find. All visit at once, since each waits for most of the time."""

    def packages() -> npm.Packages:
        found: npm.Packages = request.getfixturevalue("packages")
        return found

    async def visit(client: Callable[[Visit], Awaitable[list[str]]], person: Person) -> list[str]:
        home = tmp_path_factory.mktemp(client.__name__)
        async with asyncio.timeout(VISIT_WITHIN), desktop(home, person) as screen:
            return await client(Visit(gate.server("demo"), screen, site, packages))

    with suppress(npm.Unavailable):
        npm.installed()  # now: it may take longer than a visit
    people = [await gate.member(client.__name__.replace("_", "-")) for client in CLIENTS]
    tasks = {
        client.__name__: asyncio.create_task(visit(client, person))
        for client, person in zip(CLIENTS, people, strict=True)
    }
    yield tasks
    for task in tasks.values():
        task.cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)


async def events_of(gate: Gate, email: str) -> list[dict[str, Any]]:
    """What `auth_events` says of a person, oldest first."""
    page = await gate.admin.api("GET", "/api/activity/auth-events?limit=200")
    return [event for event in reversed(page["items"]) if event["email"] == email]


@pytest.mark.parametrize("client", [client.__name__ for client in CLIENTS])
async def test_a_client_signs_in_once_calls_and_refreshes(
    gate: Gate, visits: dict[str, "asyncio.Task[list[str]]"], client: str
) -> None:
    found = await visits[client]
    assert len(found) == 2
    assert "3" in found[0]
    assert "2" in found[1]
    email = f"{client.replace('_', '-')}@example.com"
    calls = await gate.recorded(2, tool="word_count", user=email)
    assert {call["status"] for call in calls} == {"ok"}
    seen: Counter[str] = Counter()
    async with asyncio.timeout(20):
        while seen["granted"] + seen["refreshed"] < 2:
            seen = Counter(event["event"] for event in await events_of(gate, email))
            await asyncio.sleep(0.1)
    assert (seen["consented"], seen["granted"]) == (1, 1), "the person was asked once"
    assert seen["refreshed"], "and the client did the rest"
