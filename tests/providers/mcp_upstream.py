"""An MCP server that demands MCP authorization: `python -m tests.providers.mcp_upstream PORT ISSUER`.

It asks the provider about each token (RFC 7662), and takes those only that were given for itself (RFC 8707).
"""

import sys

import httpx2
import uvicorn
from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.provider import AccessToken, TokenVerifier
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import MCPServer
from pydantic import AnyHttpUrl


class Introspection(TokenVerifier):
    def __init__(self, issuer: str, resource: str) -> None:
        self._issuer, self._resource = issuer, resource
        self._http = httpx2.AsyncClient(timeout=30)  # to make one takes longer than all else here

    async def verify_token(self, token: str) -> AccessToken | None:
        told = (await self._http.post(f"{self._issuer}/introspect", data={"token": token})).json()
        if not told["active"] or told["aud"] != self._resource:
            return None
        return AccessToken(
            token=token, client_id=told["client_id"], scopes=told["scope"].split(), subject=told["sub"]
        )


def create_server(issuer: str, resource: str) -> MCPServer:
    auth = AuthSettings(
        issuer_url=AnyHttpUrl(issuer),
        resource_server_url=AnyHttpUrl(resource),
        required_scopes=["tools"],
    )
    server = MCPServer(
        "guarded", token_verifier=Introspection(issuer, resource), auth=auth, log_level="CRITICAL"
    )

    @server.tool()
    def echo(message: str) -> str:
        """Echoes back the input string."""
        return f"Echo: {message}"

    @server.tool()
    def reveal() -> str:
        """Says what it should keep to itself: the token that it was sent."""
        token = get_access_token()
        assert token
        return f"You sent {token.token}, is that right?"

    return server


if __name__ == "__main__":
    port, issuer = int(sys.argv[1]), sys.argv[2]
    app = create_server(issuer, f"http://127.0.0.1:{port}/mcp").streamable_http_app()
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="critical")
