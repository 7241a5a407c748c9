"""What clients read first: the server's metadata (RFC 8414) and its keys (RFC 7517).

`offline_access` is among the scopes because clients look for it before they ask for it (OpenID Connect Core,
section 11). Nothing hangs on it: a client gets a refresh token if it registered the grant `refresh_token`,
asked or not, and the consent page says for how long.
"""

from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from libs.common.tokens import ALGORITHM
from services.auth.domain import AUTH_METHODS, GRANT_TYPES
from services.auth.oauth.introspection import INTROSPECTION_AUTH_METHODS
from services.auth.oauth.prompts import PROMPTS
from services.auth.oauth.server import SCOPES
from services.auth.parts import parts_of
from services.auth.settings import AuthSettings

_CACHE = {"Cache-Control": "public, max-age=300"}


def metadata(settings: AuthSettings) -> dict[str, object]:
    """The metadata of the authorization server whose issuer is exactly the public URL."""
    public_url = settings.public_url
    return {
        "issuer": public_url,
        "authorization_endpoint": f"{public_url}/oauth/authorize",
        "token_endpoint": f"{public_url}/oauth/token",
        "registration_endpoint": f"{public_url}/oauth/register",
        "revocation_endpoint": f"{public_url}/oauth/revoke",
        "introspection_endpoint": f"{public_url}/oauth/introspect",
        "device_authorization_endpoint": f"{public_url}/oauth/device_authorization",
        "jwks_uri": f"{public_url}/.well-known/jwks.json",
        "scopes_supported": list(SCOPES),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": list(GRANT_TYPES),
        "token_endpoint_auth_methods_supported": AUTH_METHODS,
        "revocation_endpoint_auth_methods_supported": AUTH_METHODS,
        "introspection_endpoint_auth_methods_supported": INTROSPECTION_AUTH_METHODS,
        "code_challenge_methods_supported": ["S256"],
        "prompt_values_supported": list(PROMPTS),
        "authorization_response_iss_parameter_supported": True,
        "client_id_metadata_document_supported": settings.auth_client_documents == "on",
    }


async def server_metadata(request: Request) -> Response:
    """RFC 8414."""
    return JSONResponse(metadata(parts_of(request).settings), headers=_CACHE)


async def openid_metadata(request: Request) -> Response:
    """The same for clients that look where OpenID Connect has it, with the two members that their parsers
    insist on (RFC 8414, section 5). There are no ID tokens."""
    extra = {"subject_types_supported": ["public"], "id_token_signing_alg_values_supported": [ALGORITHM]}
    return JSONResponse(metadata(parts_of(request).settings) | extra, headers=_CACHE)


async def jwks(request: Request) -> Response:
    """The public keys that verify access tokens."""
    return JSONResponse({"keys": parts_of(request).keys.public()}, headers=_CACHE)


Handler = Callable[[Request], Awaitable[Response]]


def _routes() -> Mapping[str, Handler]:
    """Where all that is found. Clients of 2025-03-26 and others insert the path of a server's URL behind the
    well-known name (RFC 8414, section 3.1); they get the same document, of the same issuer."""
    documents: dict[str, Handler] = {
        "/.well-known/oauth-authorization-server": server_metadata,
        "/.well-known/openid-configuration": openid_metadata,
    }
    servers = ("", "/mcp", "/mcp/{slug}", "/mcp/{slug}/sse")
    found = {f"{name}{server}": handle for name, handle in documents.items() for server in servers}
    return {**found, "/.well-known/jwks.json": jwks}


ROUTES = _routes()
