"""A server of the revision 2026-07-28 and of no other: `python -m tests.matrix.modern_server PORT`.

It has tools of @modelcontextprotocol/server-everything, so that clients find the same at every upstream.
"""

import asyncio
import json
import sys

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from starlette.types import ASGIApp, Receive, Scope, Send

REVISION = "2026-07-28"


def create_server() -> MCPServer:
    server = MCPServer("modern-only", log_level="CRITICAL")

    @server.tool()
    def echo(message: str) -> str:
        """Echoes back the input string."""
        return f"Echo: {message}"

    @server.tool(name="trigger-long-running-operation")
    async def long_running(ctx: Context, duration: float = 10, steps: int = 5) -> str:
        """Takes `duration` seconds, and reports progress at each step."""
        for step in range(1, steps + 1):
            await asyncio.sleep(duration / steps)
            await ctx.report_progress(step, steps)
        return f"Long running operation completed. Duration: {duration:g} seconds, Steps: {steps}."

    return server


class ModernOnly:
    """Refuses what earlier revisions send, as the specification says (basic/versioning)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/mcp":
            await self._app(scope, receive, send)
        elif scope["method"] != "POST":
            await answer(send, 405, {})
        elif (version := dict(scope["headers"]).get(b"mcp-protocol-version", b"").decode()) != REVISION:
            data = {"supported": [REVISION], "requested": version}
            error = {"code": -32022, "message": "Unsupported protocol version", "data": data}
            await answer(send, 400, {"jsonrpc": "2.0", "id": None, "error": error})
        else:
            await self._app(scope, receive, send)


async def answer(send: Send, status: int, body: object) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(body).encode()})


def main() -> None:
    app = ModernOnly(create_server().streamable_http_app())
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error", ws="none", http="h11")


if __name__ == "__main__":
    main()
