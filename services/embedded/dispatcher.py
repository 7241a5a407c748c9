"""One origin for five services: sends each path to the service that owns it.

The table is the one that any path-routing ingress has in front of five processes: no service knows a
prefix, no two serve the same path, and what nobody names belongs to activity, which has the start page.
"""

from collections.abc import Mapping

from starlette.types import ASGIApp, Receive, Scope, Send

from services.embedded.catalog import Name
from services.embedded.health import Health

# A path belongs to its longest prefix here, counted in whole segments.
ROUTES: Mapping[str, Name] = {
    "/": "activity",
    "/activity": "activity",
    "/api/activity": "activity",
    "/login": "auth",
    "/logout": "auth",
    "/account": "auth",
    "/users": "auth",
    "/oauth": "auth",
    "/api/auth": "auth",
    "/.well-known": "auth",
    "/.well-known/oauth-protected-resource": "gateway",
    "/mcp": "gateway",
    "/servers": "policy",
    "/groups": "policy",
    "/api/policy": "policy",
    "/credentials": "credentials",
    "/api/credentials": "credentials",
}


def owner_of(path: str) -> Name:
    """The service that serves `path` (decoded, without its query)."""
    while path and path != "/":
        if name := ROUTES.get(path):
            return name
        path = path.rpartition("/")[0]
    return ROUTES["/"]


class Dispatcher:
    """The ASGI app of embedded mode. Lifespans are entered by `services.embedded.lifespan`, not here."""

    def __init__(self, apps: Mapping[Name, ASGIApp]) -> None:
        self._apps = apps
        self._health = Health(apps)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"embedded mode serves HTTP only, not {scope['type']}")
        path = scope["path"]
        if path in self._health.paths:
            await self._health(scope, receive, send)
        else:
            await self._apps[owner_of(path)](scope, receive, send)
