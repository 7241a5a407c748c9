"""How a client finds its way in: metadata (RFC 9728) and the challenge (RFC 6750, section 3)."""

from libs.common.settings import Settings

METADATA = "/.well-known/oauth-protected-resource"
SCOPE = "mcp"


def resource(settings: Settings, server: str) -> str:
    """The canonical URI of a server (RFC 8707), which is the audience of its tokens."""
    return f"{settings.public_url}/mcp/{server}"


def gateway_resource(settings: Settings) -> str:
    """Audience of tokens for the gateway as a whole, given to clients that name no `resource`."""
    return f"{settings.public_url}/mcp"


def document(settings: Settings, server: str) -> dict[str, object]:
    """The metadata of a server. The same for one that does not exist: it tells nothing about servers."""
    return {
        "resource": resource(settings, server),
        "authorization_servers": [settings.public_url],
        "scopes_supported": [SCOPE],
        "bearer_methods_supported": ["header"],
    }


def challenge(settings: Settings, server: str, error: str = "", description: str = "") -> bytes:
    """Value of `WWW-Authenticate`."""
    parts = [f'resource_metadata="{settings.public_url}{METADATA}/mcp/{server}"', f'scope="{SCOPE}"']
    if error:
        parts += [f'error="{error}"', f'error_description="{description}"']
    return f"Bearer {', '.join(parts)}".encode()
