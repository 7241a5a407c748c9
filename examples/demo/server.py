"""The demo server: its tools, a resource and a prompt, and the ASGI app that serves them."""

from mcp.server.mcpserver import MCPServer
from mcp.server.transport_security import TransportSecuritySettings
from mcp_types import ToolAnnotations
from starlette.applications import Starlette

from examples.demo import units
from examples.demo.tools import TOOLS

INSTRUCTIONS = "Small everyday tools: time, word counts, units. `slow` takes a while, `fail` always fails."
LOOPBACK = {"127.0.0.1": "127.0.0.1", "localhost": "localhost", "::1": "[::1]"}


def create_server() -> MCPServer:
    """The server without a transport."""
    server = MCPServer("demo", title="Lockgate demo", instructions=INSTRUCTIONS, log_level="WARNING")
    for tool in TOOLS:
        server.tool(annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False))(tool)

    @server.resource("demo://units", mime_type="text/plain")
    def known_units() -> str:
        """The units that `convert` knows, one line per dimension."""
        dimensions: dict[str, list[str]] = {}
        for name, unit in units.UNITS.items():
            dimensions.setdefault(unit.dimension, []).append(name)
        return "\n".join(f"{dimension}: {', '.join(names)}" for dimension, names in dimensions.items())

    @server.prompt()
    def plan_meeting(zones: str) -> str:
        """Find a time for a meeting of people in several time zones, separated by commas."""
        return f"Find an hour that falls into working time in all of: {zones}. Ask `now` for each zone first."

    return server


def create_app(host: str = "127.0.0.1") -> Starlette:
    """The ASGI app at `/mcp`. On a loopback `host` other `Host` and `Origin` headers are refused.

    A web page that points its own name at 127.0.0.1 (DNS rebinding) gets nowhere then. On any other address
    the names under which people reach this server are not known here, so the check is off.
    """
    names = list(LOOPBACK.values())
    security = TransportSecuritySettings(
        enable_dns_rebinding_protection=host in LOOPBACK,
        allowed_hosts=[f"{name}:*" for name in names],
        allowed_origins=[f"http://{name}:*" for name in names],
    )
    return create_server().streamable_http_app(transport_security=security)
