"""Real MCP servers on mcp 2.3, one for each way of speaking the protocol, as ASGI apps.

`modern_and_legacy_app`, `legacy_app` and `modern_only_app` answer at `/mcp`, `sse_app` at `/sse`; `served`
runs one on a port of its own. `app.did` lists what tools did, in order: `["slow began", "slow cancelled"]`.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Annotated, Any

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.prompts.base import UserMessage
from mcp.server.mcpserver.resolve import Elicit, Resolve, Sample
from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp_types import (
    CreateMessageResult,
    JSONRPCMessage,
    LoggingMessageNotification,
    LoggingMessageNotificationParams,
    SamplingMessage,
    TextContent,
)
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, MODERN_PROTOCOL_VERSIONS
from pydantic import BaseModel, Field

from tests.asgi import serve
from tests.conftest import free_port

Scope = dict[str, Any]
Asgi = Callable[[Scope, Any, Any], Awaitable[None]]
Era = str


@dataclass
class App:
    """A server. `requests` are the HTTP requests it got: method and headers; `clients` the connections."""

    asgi: Asgi
    did: list[str]
    server: MCPServer
    refuses: Callable[[Scope], bytes | None] = lambda _: None
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    clients: set[tuple[str, int]] = field(default_factory=set)

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            headers = {name.decode(): value.decode("latin-1") for name, value in scope["headers"]}
            self.requests.append((scope["method"], headers))
            self.clients.add(scope["client"])
            if (refusal := self.refuses(scope)) is not None:
                status = 400 if scope["method"] == "POST" else 405
                head = [(b"content-type", b"application/json")]
                await send({"type": "http.response.start", "status": status, "headers": head})
                await send({"type": "http.response.body", "body": refusal})
                return
        await self.asgi(scope, receive, send)


@asynccontextmanager
async def served(app: Any) -> AsyncIterator[str]:
    """Serve `app` with uvicorn on the test's loop; gives its origin, `http://127.0.0.1:<port>`."""
    async with AsyncExitStack() as stack:
        port = free_port()
        await serve(app, port, stack, timeout_graceful_shutdown=0)  # streams of a gateway stay open
        yield f"http://127.0.0.1:{port}"


def modern_and_legacy_app(*, json_response: bool = False) -> App:
    """Both eras at one URL, legacy with sessions and resumable streams."""
    server, did = _server()
    asgi = server.streamable_http_app(event_store=Events(), retry_interval=100, json_response=json_response)
    return App(asgi, did, server)


def legacy_app(*, json_response: bool = False) -> App:
    """Only the revisions up to 2025-11-25, with sessions; a modern request gets what older SDKs answer."""
    app = modern_and_legacy_app(json_response=json_response)
    app.refuses = _refuse_modern
    return app


def modern_only_app(*, json_response: bool = False) -> App:
    """Only 2026-07-28: no `initialize`, no sessions, POST only."""
    app = modern_and_legacy_app(json_response=json_response)
    app.refuses = _refuse_legacy
    return app


def sse_app() -> App:
    """HTTP+SSE of 2024-11-05: the stream at `/sse`, messages to what its first event says."""
    server, did = _server()
    return App(server.sse_app(), did, server)


def _version(scope: Scope) -> str | None:
    return next((v.decode("latin-1") for k, v in scope["headers"] if k == b"mcp-protocol-version"), None)


def _refuse_modern(scope: Scope) -> bytes | None:
    version = _version(scope)
    if version is None or version in HANDSHAKE_PROTOCOL_VERSIONS:
        return None
    message = f"Bad Request: Unsupported protocol version: {version}"
    return _error(-32600, message)


def _refuse_legacy(scope: Scope) -> bytes | None:
    version = _version(scope)
    if version in MODERN_PROTOCOL_VERSIONS:
        return None
    data = {"supported": list(MODERN_PROTOCOL_VERSIONS), "requested": version or "2025-03-26"}
    return _error(-32022, "Unsupported protocol version", data)


def _error(code: int, message: str, data: Any = None) -> bytes:
    error = {"code": code, "message": message} | ({"data": data} if data else {})
    return json.dumps({"jsonrpc": "2.0", "id": None, "error": error}).encode()


class Events(EventStore):
    """Every event of every stream, so that a stream can be resumed."""

    def __init__(self) -> None:
        self._events: list[tuple[str, JSONRPCMessage | None]] = []

    async def store_event(self, stream_id: str, message: JSONRPCMessage | None) -> str:
        self._events.append((stream_id, message))
        return str(len(self._events))

    async def replay_events_after(self, last_event_id: str, send_callback: EventCallback) -> str | None:
        last = int(last_event_id)
        stream = self._events[last - 1][0]
        for number, (of, message) in enumerate(self._events[last:], last + 1):
            if of == stream and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream


class Name(BaseModel):
    """What `ask` asks for."""

    name: str


async def _ask() -> Elicit[Name]:
    return Elicit("Who are you?", Name)


async def _sample() -> Sample:
    question = SamplingMessage(role="user", content=TextContent(type="text", text="Say something"))
    return Sample([question], max_tokens=10)


Region = Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})]


def _server() -> tuple[MCPServer, list[str]]:
    """A server with tools for everything that a connection has to carry."""
    server, did = MCPServer("everything", version="1.0", log_level="ERROR"), []  # type: tuple[MCPServer, list[str]]
    _add_simple(server, did)
    _add_talking(server)
    _add_slow(server, did)
    return server, did


def _add_simple(server: MCPServer, did: list[str]) -> None:
    @server.tool()
    async def echo(text: str) -> str:
        """The text."""
        did.append(f"echo {text}")
        return text

    @server.tool()
    async def fail() -> str:
        """An error of the tool."""
        raise ToolError("on purpose")

    @server.tool()
    async def located(region: Region, query: str = "") -> str:
        """A tool with a parameter that is mirrored in the header `Mcp-Param-Region`."""
        return f"{region}: {query}"

    @server.tool()
    async def seen_headers(ctx: Context[Any, Any]) -> dict[str, str]:
        """The headers of the request that carried the call."""
        return dict(ctx.headers or {})

    @server.resource("demo://greeting")
    async def greeting() -> str:
        """A resource."""
        return "hello"

    @server.prompt()
    async def introduce(name: str) -> list[UserMessage]:
        """A prompt."""
        return [UserMessage(f"I am {name}")]


def _add_talking(server: MCPServer) -> None:
    @server.tool()
    async def count(to: int, ctx: Context[Any, Any]) -> str:
        """Progress at each number."""
        for number in range(1, to + 1):
            await ctx.report_progress(number, to, f"number {number}")
        return f"counted to {to}"

    @server.tool()
    async def log(text: str, ctx: Context[Any, Any]) -> str:
        """A log message on the way."""
        params = LoggingMessageNotificationParams(level="info", data=text)
        await ctx.session.send_notification(LoggingMessageNotification(params=params), ctx.request_id)
        return "logged"

    @server.tool()
    async def ask(who: Annotated[Name, Resolve(_ask)]) -> str:
        """Asks the user (elicitation), in the way of the era."""
        return f"you are {who.name}"

    @server.tool()
    async def sample(said: Annotated[CreateMessageResult, Resolve(_sample)]) -> str:
        """Asks the client's model (sampling), in the way of the era."""
        return f"the model said {said.content.text}"  # type: ignore[union-attr]

    @server.tool()
    async def announce(ctx: Context[Any, Any]) -> str:
        """Says outside of this call that the list of tools has changed."""
        await ctx.notify_tools_changed()
        await ctx.session.send_tool_list_changed()
        return "announced"


def _add_slow(server: MCPServer, did: list[str]) -> None:
    @server.tool()
    async def slow(ctx: Context[Any, Any], seconds: float = 60.0) -> str:
        """Takes its time after one progress notification; keeps whether it was cancelled."""
        did.append("slow began")
        await ctx.report_progress(0, 1)
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            did.append("slow cancelled")
            raise
        did.append("slow ended")
        return "done"

    @server.tool()
    async def interrupted(ctx: Context[Any, Any]) -> str:
        """Closes its own stream in the middle (2025-11-25): the answer has to be fetched by resuming it."""
        await ctx.report_progress(0, 1)
        await ctx.close_sse_stream()
        await asyncio.sleep(0.2)
        did.append("interrupted ended")
        return "after the interruption"
