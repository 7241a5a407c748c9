"""The policy service, running, and a gateway with an upstream that it can ask."""

import base64
import os
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI
from mcp.server.mcpserver import MCPServer
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from services.embedded.lifespan import Lifespan
from services.gateway.app import create_app as create_gateway
from services.gateway.settings import GatewaySettings
from services.policy.app import MIGRATIONS, create_app
from services.policy.settings import PolicySettings
from tests.conftest import Nats, eventually, free_port
from tests.unit.conftest import IN_BROWSER, ControlLog, Migrated, Person, Serve, SignIn

LEASE = 1.0  # seconds; short, so that tests of expiry are


@pytest.fixture
def settings(nats: Nats, tmp_path: Path, migrated: Migrated) -> PolicySettings:
    migrated(MIGRATIONS, tmp_path / "data" / "policy.db")
    return PolicySettings(
        nats_url=nats.url, data_dir=tmp_path / "data", lease=LEASE, policy_upstream_timeout=2.0
    )


@dataclass
class Policy:
    """A running policy service: `api` calls it as an administrator's script, `browser` as their browser."""

    app: FastAPI
    api: httpx2.AsyncClient
    browser: httpx2.AsyncClient
    admin: Person
    control: ControlLog

    async def add(self, slug: str = "wiki", **body: Any) -> dict[str, Any]:
        """Register a server."""
        body = {"name": slug.title(), "url": f"https://{slug}.example.com/mcp"} | body
        answer = await self.api.put(f"/api/policy/servers/{slug}", json=body)
        assert answer.status_code == 200, answer.text
        result: dict[str, Any] = answer.json()
        return result


@pytest.fixture
async def policy(
    settings: PolicySettings, control: ControlLog, sign_in: SignIn, serve: Serve
) -> AsyncIterator[Policy]:
    admin = await sign_in("admin", "ada")
    app = create_app(settings)
    client = await serve(app)
    client.headers.update(admin.script)
    transport = httpx2.ASGITransport(app)
    async with httpx2.AsyncClient(
        transport=transport, base_url=settings.public_url, headers=IN_BROWSER, cookies=admin.cookies
    ) as browser:
        yield Policy(app, client, browser, admin, control)


@dataclass
class Upstream:
    """A real MCP server on a port of its own. It answers 401 to requests without the header it `wants`."""

    port: int
    tools: list[tuple[str, str]] = field(default_factory=list)
    wants: tuple[str, str] | None = None
    prompts: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    seen: list[dict[str, str]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/mcp"

    def app(self) -> ASGIApp:
        server = MCPServer("upstream")
        for name, description in self.tools:
            server.add_tool(lambda: "done", name=name, description=description)
        for name in self.prompts:
            server.prompt(name)(lambda: "say it")
        for uri in self.resources:
            server.resource(uri, name="page", description="A page")(
                (lambda page: page) if "{page}" in uri else (lambda: "text")
            )
        inner = server.streamable_http_app()

        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http":
                self.seen.append(dict(Request(scope).headers))
                if self.wants and self.seen[-1].get(self.wants[0]) != self.wants[1]:
                    refusal: Response = PlainTextResponse(f"not {self.seen[-1]}", 401)
                    return await refusal(scope, receive, send)
            return await inner(scope, receive, send)

        return guarded


StartUpstream: TypeAlias = Callable[..., Awaitable[Upstream]]


@pytest.fixture
def upstream() -> Iterator[StartUpstream]:
    """`await upstream(("add", "Adds"), wants=("x-api-key", "k"))` starts one in a thread of its own."""
    running: list[tuple[uvicorn.Server, threading.Thread]] = []

    async def start(*tools: tuple[str, str], **more: Any) -> Upstream:
        made = Upstream(free_port(), list(tools), **more)
        config = uvicorn.Config(made.app(), port=made.port, log_level="critical", ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        running.append((server, thread))
        await eventually(lambda: server.started)
        return made

    yield start
    for server, thread in running:
        server.should_exit = True
        thread.join(10)


StartGateway: TypeAlias = Callable[[], Awaitable[None]]


@pytest.fixture
async def gateway(nats: Nats, tmp_path: Path) -> AsyncIterator[StartGateway]:
    """`await gateway()` starts a real gateway replica, which nobody calls over HTTP."""
    settings = GatewaySettings(
        nats_url=nats.url,
        data_dir=tmp_path / "gateway",
        lease=LEASE,
        gateway_session_key=base64.b64encode(os.urandom(32)).decode(),
    )
    async with AsyncExitStack() as stack:

        async def start() -> None:
            settings.data_dir.mkdir()
            lifespan = Lifespan("gateway", partial(create_gateway, settings))
            await lifespan.start()
            stack.push_async_callback(lifespan.stop)

        yield start
