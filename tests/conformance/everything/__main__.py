"""`python -m tests.conformance.everything PORT`: the server, on Streamable HTTP in both eras, at /mcp."""

import base64
import json
import sys
from collections.abc import Callable
from typing import Any

import uvicorn
from mcp.server import ServerRequestContext
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.prompts.base import Prompt
from mcp.server.mcpserver.tools import Tool
from mcp.server.streamable_http_manager import StreamableHTTPASGIApp
from mcp.server.transport_security import TransportSecuritySettings
from mcp_types import (
    Completion,
    EmptyResult,
    SetLevelRequestParams,
    SubscribeRequestParams,
    UnsubscribeRequestParams,
)
from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp

from tests.conformance.everything import asking, content, rounds, streams

RETRY_MS = 100  # after which a client comes back for the rest of a stream
LOCAL_ONLY = TransportSecuritySettings(
    allowed_hosts=["127.0.0.1:*", "localhost:*"],
    allowed_origins=["http://127.0.0.1:*", "http://localhost:*"],
)

# Keywords of JSON Schema 2020-12 that a tool's schema must keep on its way (SEP-1613, SEP-2106).
SCHEMA_2020_12: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {
        "address": {
            "$anchor": "addressDef",
            "type": "object",
            "properties": {"street": {"type": "string"}, "city": {"type": "string"}},
        }
    },
    "properties": {
        "name": {"type": "string"},
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": {"type": "string"},
        "email": {"type": "string"},
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}


def json_schema_2020_12_tool() -> str:
    """Is there for its schema."""
    return "json_schema_2020_12_tool"


def tools() -> list[Tool]:
    plain: list[Callable[..., Any]] = [*content.TOOLS, *asking.TOOLS, *rounds.TOOLS, *streams.TOOLS]
    with_schema = Tool.from_function(json_schema_2020_12_tool)
    with_schema.parameters = SCHEMA_2020_12
    return [*(Tool.from_function(function, structured_output=False) for function in plain), with_schema]


def add_resources(server: MCPServer) -> None:
    @server.resource("test://static-text", mime_type="text/plain")
    def static_text() -> str:
        """A text."""
        return "This is the content of the static text resource."

    @server.resource("test://static-binary", mime_type="image/png")
    def static_binary() -> bytes:
        """An image."""
        return base64.b64decode(content.PIXEL)

    @server.resource("test://watched-resource", mime_type="text/plain")
    def watched() -> str:
        """One to subscribe to."""
        return "Watched resource content"

    @server.resource("test://template/{id}/data", mime_type="application/json")
    def template(id: str) -> str:
        """One for each id."""
        return json.dumps({"id": id, "templateTest": True, "data": f"Data for ID: {id}"})


def add_what_sessions_had(server: MCPServer) -> None:
    """Requests of the revisions up to 2025-11-25 that the SDK leaves to its low-level server."""

    async def accept(ctx: ServerRequestContext[Any, Any], params: object) -> EmptyResult:
        return EmptyResult()

    handle = server._lowlevel_server.add_request_handler
    handle("logging/setLevel", SetLevelRequestParams, accept)
    handle("resources/subscribe", SubscribeRequestParams, accept)
    handle("resources/unsubscribe", UnsubscribeRequestParams, accept)


def create_server() -> MCPServer:
    server = MCPServer("everything", version="1.0.0", tools=tools(), log_level="CRITICAL")
    for function in (*content.PROMPTS, *rounds.PROMPTS):
        server.add_prompt(Prompt.from_function(function))
    add_resources(server)
    add_what_sessions_had(server)

    @server.completion()  # type: ignore[no-untyped-call,untyped-decorator]
    async def complete(ref: object, argument: object, context: object) -> Completion:
        return Completion(values=["paris", "park", "party"], total=3, has_more=False)

    return server


def create_app(server: MCPServer) -> ASGIApp:
    manager = streams.ResumableSessions(
        server._lowlevel_server, retry_interval=RETRY_MS, security_settings=LOCAL_ONLY
    )
    routes = [Route("/mcp", StreamableHTTPASGIApp(manager))]
    return Starlette(routes=routes, lifespan=lambda _: manager.run())


def main() -> None:
    # h11 takes the white space around header values away (RFC 9110, section 5.5), httptools does not.
    app = create_app(create_server())
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error", ws="none", http="h11")


if __name__ == "__main__":
    main()
