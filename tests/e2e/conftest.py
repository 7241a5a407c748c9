"""Lockgate as its users have it: real processes, a scripted browser, the official MCP client."""

import asyncio
import base64
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from mcp import Client
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientMetadata
from pydantic import AnyUrl

from services.embedded.dispatcher import owner_of
from tests.conftest import await_port, free_port
from tests.front import Front
from tests.token_storage import Tokens
from tests.upstreams import serving

LOCKGATE = Path(sys.executable).with_name("lockgate")
START_WITHIN = 90.0  # seconds
STOP_WITHIN = 20.0
CALLBACK = "http://127.0.0.1:33418/callback"  # nobody listens there: the scripted browser stops before it


def environment(**values: object) -> dict[str, str]:
    """The environment without our own variables, and `values` as LOCKGATE_*."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LOCKGATE_")}
    return clean | {f"LOCKGATE_{name.upper()}": str(value) for name, value in values.items()}


@dataclass
class Process:
    """A `lockgate` process, which a test may kill and start again."""

    command: list[str]
    env: dict[str, str]
    url: str
    log: Path
    process: "subprocess.Popen[bytes] | None" = None

    async def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [str(LOCKGATE), *self.command], env=self.env, stdout=log, stderr=subprocess.STDOUT
            )
        await self.until_ready()

    async def until_ready(self) -> None:
        async with asyncio.timeout(START_WITHIN), httpx2.AsyncClient() as client:
            while True:
                assert self.process and self.process.poll() is None, self.output
                try:
                    if (await client.get(f"{self.url}/readyz", timeout=5)).status_code == 200:
                        return
                except httpx2.TransportError:
                    pass
                await asyncio.sleep(0.05)

    def kill(self) -> None:
        """SIGKILL: nothing is said goodbye to."""
        assert self.process
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_WITHIN)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    @property
    def output(self) -> str:
        return self.log.read_text()


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

    def _at(self, path: str) -> str:
        return path if path.startswith("http") else self.origin + path


@dataclass
class Person:
    """Somebody with an account, a browser and MCP clients."""

    browser: Browser
    transport: httpx2.AsyncBaseTransport | None = None
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


@dataclass
class Gate:
    """A running Lockgate with its first administrator signed in."""

    url: str
    data: Path
    admin: Browser
    stack: AsyncExitStack
    process: Process | None = None
    transport: httpx2.AsyncBaseTransport | None = None

    def server(self, slug: str) -> str:
        return f"{self.url}/mcp/{slug}"

    async def http(self) -> httpx2.AsyncClient:
        client = httpx2.AsyncClient(timeout=30, transport=self.transport)
        return await self.stack.enter_async_context(client)

    async def administrator(self) -> Person:
        return Person(self.admin, self.transport)

    async def member(self, name: str = "mia") -> Person:
        """A new member, signed in."""
        email, password = f"{name}@example.com", f"a long password of {name}"
        user = {"email": email, "name": name.title(), "role": "member", "password": password}
        await self.admin.api("POST", "/api/auth/users", user)
        browser = Browser(self.url, await self.http())
        await browser.sign_in(email, password)
        return Person(browser, self.transport)

    async def switch(self, slug: str, *, enabled: bool, reason: str = "") -> Any:
        """Switch a server on or off, as its administrator."""
        body = {"enabled": enabled, "reason": reason}
        return await self.admin.api("PUT", f"/api/policy/servers/{slug}/switch", body)

    async def calls(self, **filters: str) -> list[dict[str, Any]]:
        """Every recorded call that the filters let through, newest first, over all pages."""
        query, items = {"limit": "200"} | filters, []
        while True:
            encoded = str(httpx2.QueryParams(query))
            page = await self.admin.api("GET", f"/api/activity/calls?{encoded}")
            items += page["items"]
            if not page["next"]:
                return items
            query["after"] = page["next"]

    async def recorded(self, count: int = 1, within: float = 10.0, **filters: str) -> list[dict[str, Any]]:
        """The recorded calls, once there are at least `count`."""
        async with asyncio.timeout(within):
            while len(calls := await self.calls(**filters)) < count:
                await asyncio.sleep(0.05)
        return calls

    async def replica(self, name: str, *options: str) -> Process:
        """A further gateway process beside the embedded one, on a journal of its own."""
        port = free_port()
        env = environment(data_dir=self.data.with_name(name))
        for line in (self.data / "gateway.env").read_text().splitlines():
            key, found, value = line.partition("=")
            if found and not key.startswith("#"):
                env[key.removeprefix("export ")] = value.strip("'\"")
        command = ["serve", "gateway", "--port", str(port), *options]
        process = Process(command, env, f"http://127.0.0.1:{port}", self.data.with_name(f"{name}.log"))
        self.stack.callback(process.stop)
        await process.start()
        return process


async def sign_in_administrator(
    url: str, output: str, stack: AsyncExitStack, transport: Any = None
) -> Browser:
    email, password = (re.search(rf"{name}:\s+(\S+)", output) for name in ("E-mail", "Password"))
    assert email and password, output
    http = await stack.enter_async_context(httpx2.AsyncClient(timeout=30, transport=transport))
    browser = Browser(url, http)
    await browser.sign_in(email[1], password[1])
    return browser


@asynccontextmanager
async def started(
    directory: Path, front: Front | None = None, variables: dict[str, str] | None = None
) -> AsyncIterator[Gate]:
    """A fresh `lockgate up` with the demo server, and with these environment variables too. With a `front` it
    is known by the front's URL."""
    async with AsyncExitStack() as stack:
        port = free_port()
        local = url = f"http://127.0.0.1:{port}"
        data = directory / "data"
        command = ["up", "--data", str(data), "--port", str(port)]
        if front:
            front.services, url = local, front.url
            command += ["--public-url", url]
        process = Process(command, environment() | (variables or {}), local, directory / "up.log")
        stack.callback(process.stop)
        await process.start()
        async with asyncio.timeout(10):
            while "Password:" not in process.output:
                await asyncio.sleep(0.02)
        admin = await sign_in_administrator(url, process.output, stack)
        yield Gate(url, data, admin, stack, process)


@pytest.fixture
async def gate(tmp_path: Path) -> AsyncIterator[Gate]:
    """A fresh `lockgate up` with the demo server."""
    async with started(tmp_path) as gate:
        yield gate


@pytest.fixture
async def front() -> AsyncIterator[Front]:
    """Stands before the replicas of `balanced`."""
    front = Front()
    await front.start()
    yield front
    await front.stop()


@pytest.fixture
async def balanced(front: Front, tmp_path: Path) -> AsyncIterator[Gate]:
    """Two replicas behind one URL, which take turns request by request."""
    async with started(tmp_path, front) as gate:
        second = await gate.replica("second")
        front.replicas = [front.services, second.url]
        yield gate


class Edge(httpx2.AsyncBaseTransport):
    """Stands where an ingress stands: sends each path of the one origin to the process that serves it."""

    def __init__(self, origin: str, services: dict[str, str]) -> None:
        self._origin, self._services = origin, services
        self._http = httpx2.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if not str(request.url).startswith(self._origin):
            return await self._http.handle_async_request(request)
        service = httpx2.URL(self._services[owner_of(request.url.path)])
        url = request.url.copy_with(scheme=service.scheme, host=service.host, port=service.port)
        # A request of its own: the client keeps cookies by the URL of the one that it made.
        routed = httpx2.Request(
            request.method, url, headers=request.headers, stream=request.stream, extensions=request.extensions
        )
        return await self._http.handle_async_request(routed)

    async def aclose(self) -> None:
        """Shared by several clients: closed with the test, not with the first of them."""

    async def close(self) -> None:
        await self._http.aclose()


@dataclass
class Fleet:
    """The five services as processes of their own over a NATS server."""

    gate: Gate
    services: dict[str, Process]


NAMES = ("auth", "policy", "credentials", "activity", "gateway")


@pytest.fixture
async def fleet(nats: Any, tmp_path: Path) -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:
        origin = "http://lockgate.test"
        key = base64.b64encode(os.urandom(32)).decode()
        common = {"public_url": origin, "nats_url": nats.url, "data_dir": tmp_path / "data"}
        secrets = {"gateway_session_key": key, "credentials_master_key": key}
        services = {}
        for name in NAMES:
            port = free_port()
            env = environment(**common, **secrets)
            url, log = f"http://127.0.0.1:{port}", tmp_path / f"{name}.log"
            services[name] = Process(["serve", name, "--port", str(port)], env, url, log)
            stack.callback(services[name].stop)
        await asyncio.gather(*(service.start() for service in services.values()))
        edge = Edge(origin, {name: service.url for name, service in services.items()})
        stack.push_async_callback(edge.close)
        output = services["auth"].output
        admin = await sign_in_administrator(origin, output, stack, edge)
        yield Fleet(Gate(origin, tmp_path / "data", admin, stack, transport=edge), services)


@dataclass
class Recorder:
    """A real MCP server (mcp SDK) in a process of its own, which writes down every request it gets."""

    url: str
    log: Path

    def requests(self) -> list[dict[str, Any]]:
        """Headers and body of each request, in order."""
        if not self.log.exists():
            return []
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.endswith("}")]

    def calls(self) -> list[dict[str, Any]]:
        """The arguments of each tool call."""
        bodies = [json.loads(request["body"]) for request in self.requests() if request["body"]]
        return [body["params"]["arguments"] for body in bodies if body.get("method") == "tools/call"]


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    port, log = free_port(), tmp_path / "upstream.jsonl"
    command = [sys.executable, "-m", "tests.e2e.recorder", str(port), str(log)]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2]) as process:
        try:
            await_port(port)
            yield Recorder(f"http://127.0.0.1:{port}/mcp", log)
        finally:
            process.kill()


@pytest.fixture(scope="session")
def everything() -> Iterator[str]:
    """URL of the upstream that the official conformance suite expects."""
    with serving("tests.conformance.everything") as origin:
        yield f"{origin}/mcp"
