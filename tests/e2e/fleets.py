"""The services of a Lockgate as processes of their own."""

import asyncio
import base64
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

from services.embedded.dispatcher import owner_of
from tests.conftest import free_port
from tests.e2e.gates import Gate, sign_in_administrator
from tests.e2e.processes import Process, environment


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


@asynccontextmanager
async def started_fleet(nats_url: str, directory: Path, **more: object) -> AsyncIterator[Fleet]:
    """`more` are further settings of all of them."""
    async with AsyncExitStack() as stack:
        origin = "http://lockgate.test"
        key = base64.b64encode(os.urandom(32)).decode()
        common = {"public_url": origin, "nats_url": nats_url, "data_dir": directory / "data"}
        secrets = {"gateway_session_key": key, "credentials_master_key": key}
        services = {}
        for name in NAMES:
            port = free_port()
            env = environment(**common | secrets | more)
            url, log = f"http://127.0.0.1:{port}", directory / f"{name}.log"
            services[name] = Process(["serve", name, "--port", str(port)], env, url, log)
            stack.callback(services[name].stop)
        await asyncio.gather(*(service.start() for service in services.values()))
        edge = Edge(origin, {name: service.url for name, service in services.items()})
        stack.push_async_callback(edge.close)
        output = services["auth"].output
        admin = await sign_in_administrator(origin, output, stack, edge)
        yield Fleet(Gate(origin, directory / "data", admin, stack, transport=edge), services)
