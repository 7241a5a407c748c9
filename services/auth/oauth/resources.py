"""The audience rule (RFC 8707).

A client names in `resource` what its token is for:

    {public_url}/mcp/{slug}   one server; also by its URL for HTTP+SSE, which has /sse behind it
    {public_url}/mcp          the gateway as a whole, or /mcp/sse; also what a client gets that names nothing
    {public_url}/api          the HTTP APIs

Any well-formed slug will do: whether there is such a server is not for this endpoint to tell. A token may be
asked for less than was consented to, one server instead of the gateway, never for more or for something else.
"""

import re
from urllib.parse import urlsplit

from services.auth.oauth.errors import InvalidTargetError

_SERVER = re.compile(r"(/mcp/[a-z0-9][a-z0-9-]{0,62})(?:/sse)?")
_PORTS = {"http": 80, "https": 443}


def gateway_audience(public_url: str) -> str:
    return f"{public_url}/mcp"


def audience_of(resources: list[str], public_url: str) -> str:
    """The audience that the `resource` parameters of a request stand for. Raises `InvalidTargetError`.

    Upper case in the host, a default port and a slash at the end make no difference.
    """
    named = {resource for resource in resources if resource}
    if not named:
        return gateway_audience(public_url)
    audiences = {_canonical(resource, public_url) for resource in named}
    if len(audiences) > 1:
        raise InvalidTargetError("Ask for one resource at a time.")
    return audiences.pop()


def narrowed(resources: list[str], granted: str, public_url: str) -> str:
    """The audience of a token under a grant for `granted`. Raises `InvalidTargetError`."""
    if not any(resources):
        return granted
    audience, gateway = audience_of(resources, public_url), gateway_audience(public_url)
    if audience == granted or (granted == gateway and audience.startswith(f"{gateway}/")):
        return audience
    raise InvalidTargetError("The grant is for another resource.")


def reach_of(audience: str) -> str:
    """An audience in words, for people."""
    if audience.endswith("/api"):
        return "Lockgate’s own APIs"
    return audience.partition("/mcp/")[2] or "every server"


def _canonical(resource: str, public_url: str) -> str:
    try:
        parts = urlsplit(resource)
        origin = _origin(resource)
    except ValueError as error:
        raise InvalidTargetError("The resource is not a URI.") from error
    path = _known_path(parts.path.rstrip("/"))
    if origin != _origin(public_url) or not path or parts.query or parts.fragment or "@" in parts.netloc:
        raise InvalidTargetError("There is no such resource here.")
    return public_url + path


def _known_path(path: str) -> str:
    """The path of the audience that `path` stands for; empty when it stands for none."""
    if path in {"/mcp", "/api"}:
        return path
    if path == "/mcp/sse":  # no server has the slug `sse`
        return "/mcp"
    server = _SERVER.fullmatch(path)
    return server[1] if server else ""


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)
