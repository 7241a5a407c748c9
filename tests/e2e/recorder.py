"""An upstream that writes down what reaches it: `python -m tests.e2e.recorder PORT FILE`.

A real MCP server on the SDK. Each request is one JSON line in FILE, written before it is handled.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import uvicorn
from mcp.server.mcpserver import MCPServer


def create_server() -> MCPServer:
    server = MCPServer("recorder", log_level="ERROR")

    @server.tool()
    async def echo(number: int, delay: float = 0.0) -> str:
        """Answer with `number` after `delay` seconds."""
        await asyncio.sleep(delay)
        return str(number)

    @server.tool()
    def whoami() -> str:
        """Say something that is not secret."""
        return "an upstream"

    return server


def main() -> None:
    port, log = int(sys.argv[1]), Path(sys.argv[2])
    app = create_server().streamable_http_app(stateless_http=True, json_response=True)

    async def recording(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        with log.open("a") as file:
            file.write(
                json.dumps({"method": scope["method"], "headers": headers, "body": body.decode()}) + "\n"
            )
        replayed = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def replay() -> Any:
            return next(replayed, None) or await receive()

        await app(scope, replay, send)

    uvicorn.run(recording, host="127.0.0.1", port=port, log_level="error", ws="none")


if __name__ == "__main__":
    main()
