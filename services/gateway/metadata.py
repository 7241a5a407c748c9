"""How a client finds its way in: metadata (RFC 9728) and the challenge (RFC 6750, section 3)."""

from libs.common.settings import Settings

METADATA = "/.well-known/oauth-protected-resource"
SCOPE = "mcp"


def path_of(server: str, *, sse: bool = False) -> str:
    """Where a server is reached; the gateway as a whole if `server` is empty. `sse`: by the old transport."""
    return "/mcp" + (f"/{server}" if server else "") + ("/sse" if sse else "")


def resource(settings: Settings, server: str) -> str:
    """The canonical URI of a server (RFC 8707): the audience of its tokens, whatever the transport."""
    return settings.public_url + path_of(server)


def gateway_resource(settings: Settings) -> str:
    """Audience of tokens for the gateway as a whole, given to clients that name no `resource`."""
    return resource(settings, "")


def document(settings: Settings, path: str) -> dict[str, object]:
    """The metadata of what is at `path`. The same for a server that does not exist."""
    return {
        "resource": settings.public_url + path,
        "authorization_servers": [settings.public_url],
        "scopes_supported": [SCOPE],
        "bearer_methods_supported": ["header"],
    }


def challenge(settings: Settings, path: str, error: str = "", description: str = "") -> bytes:
    """Value of `WWW-Authenticate` at `path`."""
    parts = [f'resource_metadata="{settings.public_url}{METADATA}{path}"', f'scope="{SCOPE}"']
    if error:
        parts += [f'error="{error}"', f'error_description="{description}"']
    return f"Bearer {', '.join(parts)}".encode()
