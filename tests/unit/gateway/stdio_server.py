"""A program that serves `mcp_servers` over stdio, on mcp 2.3: `legacy`, or `dual` for both eras."""

import sys

import anyio
from mcp.server.runner import serve_loop
from mcp.server.stdio import stdio_server

from tests.unit.gateway.mcp_servers import _server


async def main(era: str) -> None:
    server, _ = _server()
    if era == "dual":
        await server.run_stdio_async()
        return
    lowlevel = server._lowlevel_server
    async with stdio_server() as (incoming, outgoing), lowlevel.lifespan(lowlevel) as state:
        await serve_loop(lowlevel, incoming, outgoing, lifespan_state=state)


if __name__ == "__main__":
    anyio.run(main, sys.argv[1])
