"""Three gateway replicas, auth and policy as processes, each with a relay of its own between it and NATS."""

import asyncio
import base64
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from tests.conftest import Nats, await_port, free_port
from tests.e2e.conftest import Edge, Process, environment
from tests.faults.load import Caller, Load
from tests.faults.relay import Relay
from tests.faults.upstream import TOOLS
from tests.unit.auth.house import REDIRECT, Browser, Client

ORIGIN = "http://lockgate.test"
ADMIN, PASSWORD = "admin@example.com", "correct horse battery"
LEASE = 2.0  # seconds
REPLICAS = ("first", "second", "third")
SERVERS = ("alpha", "beta")
GROUPS = ("default", "operators")
PEOPLE = 6
KEY = base64.b64encode(os.urandom(32)).decode()


@dataclass
class Member:
    """A process of the fleet and its relay."""

    name: str
    process: Process
    relay: Relay
    database: Path

    def signal(self, number: signal.Signals) -> None:
        assert self.process.process
        self.process.process.send_signal(number)

    def commits(self) -> int:
        """A number that changes whenever somebody commits to its database."""
        with closing(sqlite3.connect(self.database)) as connection:
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            return hash(tuple(tuple(connection.execute(f'SELECT * FROM "{name}"')) for (name,) in tables))


@dataclass
class Fleet:
    nats: Nats
    stack: AsyncExitStack
    edge: Edge
    members: dict[str, Member]
    upstream: Path  # what it wrote down
    load: Load = field(default_factory=Load)
    _admin: httpx2.AsyncClient | None = None

    @property
    def replicas(self) -> list[Member]:
        return [self.members[name] for name in REPLICAS]

    @property
    def urls(self) -> list[str]:
        return [replica.process.url for replica in self.replicas]

    def http(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(base_url=ORIGIN, timeout=60, transport=self.edge)

    async def admin(self, method: str, path: str, body: object = None) -> httpx2.Response:
        """Call an HTTP API as the administrator. Raises `TransportError` when there is no answer."""
        if self._admin is None:
            await self.sign_in_administrator()
        assert self._admin
        return await self._admin.request(method, path, json=body)

    async def sign_in_administrator(self) -> None:
        http = self.http()
        client = await registered(http)
        tokens = await client.connect(await signed_in(http, ADMIN, PASSWORD), resource=f"{ORIGIN}/api")
        self._admin = self.http()
        self._admin.headers["authorization"] = f"Bearer {tokens['access_token']}"

    async def done(self, method: str, path: str, body: object = None) -> Any:
        """The same until it holds everywhere. Fails when that takes longer than a minute."""
        answer = "no answer"
        try:
            async with asyncio.timeout(60):
                while True:
                    try:
                        response = await self.admin(method, path, body)
                        if response.status_code == 200:
                            return response.json()
                        answer = f"{response.status_code} {response.text}"
                    except httpx2.TransportError as error:
                        answer = repr(error)
                    await asyncio.sleep(0.2)
        except TimeoutError:
            raise AssertionError(f"{method} {path}: {answer}") from None

    async def connect(self, caller: Caller) -> None:
        """Sign the caller in, and get a token for each server."""
        browser = await signed_in(self.http(), caller.email, caller.password)
        client = Client(self.http(), caller.client)
        for slug in SERVERS:
            tokens = await client.connect(browser, resource=f"{ORIGIN}/mcp/{slug}")
            caller.tokens[slug] = tokens["access_token"]


async def registered(http: httpx2.AsyncClient) -> Client:
    asked = {"client_name": "Load", "redirect_uris": [REDIRECT]}
    return Client(http, (await http.post("/oauth/register", json=asked)).json()["client_id"])


async def signed_in(http: httpx2.AsyncClient, email: str, password: str) -> Browser:
    browser = Browser(http)
    answer = await browser.sign_in(email, password)
    assert answer.status_code == 303, answer.text
    return browser


@asynccontextmanager
async def running_fleet(nats: Nats, directory: Path) -> AsyncIterator[Fleet]:
    """A fleet whose servers, groups and people are set up, and whose people call all the time."""
    async with AsyncExitStack() as stack:
        members = {}
        for name in ("auth", "policy", *REPLICAS):
            members[name] = await _member(name, nats, directory, stack)
        await asyncio.gather(*(member.process.start() for member in members.values()))
        services = {name: members[name].process.url for name in ("auth", "policy")}
        edge = Edge(ORIGIN, services | {"gateway": members["first"].process.url})
        stack.push_async_callback(edge.close)
        fleet = Fleet(nats, stack, edge, members, directory / "upstream.txt")
        await _furnish(fleet, _upstream(directory, stack))
        async with fleet.load.running(fleet.urls):
            yield fleet


async def _member(name: str, nats: Nats, directory: Path, stack: AsyncExitStack) -> Member:
    relay, port = Relay(nats.port), free_port()
    await relay.start()
    stack.push_async_callback(relay.stop)
    settings = {
        "public_url": ORIGIN,
        "nats_url": relay.url,
        "data_dir": directory / name,
        "lease": LEASE,
        "gateway_session_key": KEY,
        "auth_admin_email": ADMIN,
        "auth_admin_password": PASSWORD,
    }
    service = "gateway" if name in REPLICAS else name
    command, url = ["serve", service, "--port", str(port)], f"http://127.0.0.1:{port}"
    process = Process(command, environment(**settings), url, directory / f"{name}.log")
    stack.callback(_end, process)
    return Member(name, process, relay, directory / name / f"{name}.db")


def _end(process: Process) -> None:
    """Nobody looks at how it stops, and five of them take their time."""
    if process.process and process.process.poll() is None:
        process.kill()


def _upstream(directory: Path, stack: AsyncExitStack) -> str:
    port = free_port()
    command = [sys.executable, "-m", "tests.faults.upstream", str(port), str(directory / "upstream.txt")]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2])
    stack.callback(process.wait)
    stack.callback(process.kill)
    await_port(port)
    return f"http://127.0.0.1:{port}/mcp"


async def _furnish(fleet: Fleet, upstream: str) -> None:
    await fleet.done("PUT", "/api/policy/groups/operators", {"name": "Operators"})
    await fleet.done("PUT", "/api/policy/groups/guests", {"name": "Guests"})
    for slug in SERVERS:
        server = {"name": slug.title(), "url": upstream, "auth": "none", "default_access": "allow"}
        await fleet.done("PUT", f"/api/policy/servers/{slug}", server)
        await fleet.done("PUT", f"/api/policy/servers/{slug}/tools", {"tools": list(TOOLS)})
        await fleet.done("PUT", f"/api/policy/groups/operators/servers/{slug}", {"default": "allow"})
    for number in range(PEOPLE):
        fleet.load.callers.append(await _person(fleet, number))


async def _person(fleet: Fleet, number: int) -> Caller:
    email, password = f"p{number}@example.com", f"a long password of {number}"
    account = {"email": email, "name": f"Person {number}", "role": "member", "password": password}
    user = (await fleet.done("POST", "/api/auth/users", account))["id"]
    group = GROUPS[number % len(GROUPS)]
    await fleet.done("PUT", f"/api/policy/members/{user}", {"group": group})
    client = await registered(fleet.http())
    caller = Caller(user, email, password, client.id, group)
    await fleet.connect(caller)
    return caller
