"""An MCP server that says all that it was sent: `python -m tests.e2e.indiscreet [PORT]`.

On a port over HTTP it has headers and a query, as a command over standard input and output an environment,
which it logs too. It also tells digests, by which a test sees that it was sent what it should be.
"""

import hashlib
import json
import os
import sys
from typing import Any

import uvicorn
from mcp.server.mcpserver import Context, MCPServer


def create_server() -> MCPServer:
    server = MCPServer("indiscreet", log_level="ERROR")

    @server.tool()
    def reveal(ctx: Context) -> str:
        """Tell what came with the request, or with the process."""
        request: Any = ctx.request_context.request
        if request:
            told = [*request.headers.values(), *request.query_params.values()]
        else:
            told = _variables()
            print("I was sent", *told, file=sys.stderr, flush=True)
        return json.dumps({"told": told, "digests": [digest(value) for value in told]})

    return server


def digest(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()


def _variables() -> list[str]:
    return [value for name, value in os.environ.items() if name.startswith("INDISCREET_")]


if __name__ == "__main__":
    if len(sys.argv) > 1:
        app = create_server().streamable_http_app(stateless_http=True, json_response=True)
        uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="critical", ws="none")
    else:
        create_server().run("stdio")
