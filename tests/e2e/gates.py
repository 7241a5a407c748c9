"""A whole Lockgate: `lockgate up`, its administrator and members, and further replicas beside it."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from tests.conftest import free_port
from tests.e2e.people import Browser, Person
from tests.e2e.processes import Process, environment
from tests.front import Front


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
        return Person(browser, self.transport, email)

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
