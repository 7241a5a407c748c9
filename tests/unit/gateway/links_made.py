"""What tests of connections to upstreams share: a pool, a way to speak raw messages, a scripted upstream."""

import asyncio
import itertools
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from services.gateway.connection import UpstreamFailed
from services.gateway.credentials import NONE, Opened
from services.gateway.links.port import OpenSession, Session, always
from services.gateway.links.route import Route
from services.gateway.pool import Pools
from services.gateway.redaction import Redactor
from tests.asgi import serve
from tests.conftest import eventually, free_port
from tests.unit.gateway.conftest import Script, Upstream

META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}, "sampling": {}},
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
}
SECRET = "s3cret-of-the-organization"


def credential() -> Opened:
    headers = [(b"authorization", b"Bearer " + SECRET.encode())]
    return Opened(headers, Redactor(headers))


@asynccontextmanager
async def route_to(url: str, opened: Opened = NONE, **options: Any) -> AsyncIterator[Route]:
    """A route with pools of its own; when it is left, no connection is in use any more."""
    pools = Pools(limit=20)
    route = Route(url, pools, "demo", opened, **{"response_timeout": 10.0} | options)
    try:
        yield route
        pool = pools.pool(route.target.origin, "demo")
        pool.close_idle(older_than=0)
        await eventually(lambda: pool._count == 0)
        assert pool._streams == 0
    finally:
        await pools.stop()


@asynccontextmanager
async def scripted(script: Script) -> AsyncIterator[Upstream]:
    """A real HTTP server whose answers the test writes."""
    async with AsyncExitStack() as stack:
        port = free_port()
        upstream = Upstream(f"http://127.0.0.1:{port}/mcp", script=script)
        await serve(upstream, port, stack)
        yield upstream


def request(id: Any, method: str, **params: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).encode()


def modern(id: Any, method: str, **params: Any) -> bytes:
    """A request of 2026-07-28."""
    return request(id, method, **params | {"_meta": META | params.get("_meta", {})})


def notification(method: str, **params: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "method": method, "params": params}).encode()


def response(id: Any, result: Any) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": id, "result": result}).encode()


def event(message: bytes, id: str = "") -> bytes:
    return (f"id: {id}\n" if id else "").encode() + b"event: message\ndata: " + message + b"\n\n"


INITIALIZE = request(
    0,
    "initialize",
    protocolVersion="2025-11-25",
    capabilities={"elicitation": {}, "sampling": {}},
    clientInfo={"name": "test", "version": "1"},
)


@dataclass
class Talk:
    """Speaks through a session, and keeps all that it says."""

    raw: list[bytes] = field(default_factory=list)
    failed: dict[bytes, UpstreamFailed] = field(default_factory=dict)
    closed: list[UpstreamFailed] = field(default_factory=list)
    session: Session = field(init=False)
    _ids: Any = field(default_factory=lambda: itertools.count(1))

    def open(self, make: OpenSession) -> "Talk":
        self.session = make(self.raw.append, self.closed.append, self._fail)
        return self

    def _fail(self, id: bytes, failure: UpstreamFailed) -> None:
        assert id not in self.failed, "named once at the most"
        self.failed[id] = failure

    @property
    def messages(self) -> list[dict[str, Any]]:
        return [json.loads(raw) for raw in self.raw]

    def of(self, method: str) -> list[dict[str, Any]]:
        """The notifications and requests of the server with this method."""
        return [message for message in self.messages if message.get("method") == method]

    async def say(self, message: bytes) -> None:
        async with asyncio.timeout(10):
            await self.session.send(message, always)

    async def answer(self, id: Any) -> dict[str, Any]:
        """The response to `id`, once it has come."""

        def found() -> list[dict[str, Any]]:
            return [m for m in self.messages if "method" not in m and m.get("id") == id]

        await eventually(found)
        assert len(found()) == 1
        return found()[0]

    async def begin(self) -> dict[str, Any]:
        """Start the session and shake hands; gives the result of `initialize`."""
        await self.session.start()
        await self.say(INITIALIZE)
        result: dict[str, Any] = (await self.answer(0))["result"]
        await self.say(notification("notifications/initialized"))
        return result

    async def call(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Call a tool; gives its result."""
        id = await self.begin_call(tool, **arguments)
        result: dict[str, Any] = (await self.answer(id))["result"]
        return result

    async def begin_call(self, tool: str, **arguments: Any) -> int:
        id: int = next(self._ids)
        meta = {"progressToken": f"token-{id}"}
        await self.say(request(id, "tools/call", name=tool, arguments=arguments, _meta=meta))
        return id


def text(result: dict[str, Any]) -> str:
    """The text of a tool's result."""
    found: str = result["content"][0]["text"]
    return found
