"""Becoming a client of an authorization server by ourselves: dynamic registration (RFC 7591)."""

from typing import Any, cast, get_args

import msgspec

from libs.common.fetching import CannotFetch
from services.credentials.oauth.domain import AuthMethod, Client, Found, Metadata, ProviderFailed, short
from services.credentials.oauth.web import JSON, Web, host, json_object

NAME = "Lockgate"
_BY_SECRET = frozenset({"client_secret_basic", "client_secret_post"})


async def register(found: Found, redirect_uri: str, web: Web) -> Client:
    """A new client for `redirect_uri`. Raises `ProviderFailed`."""
    metadata = found.metadata
    url = metadata.registration_endpoint
    if not url:
        raise ProviderFailed(
            f"{host(metadata.token_endpoint)} does not let clients register by themselves. Register Lockgate "
            f"there with the redirect URI {redirect_uri} and enter its client id in the provider's settings."
        )
    asked = _request(metadata, redirect_uri, found.scopes)
    try:
        answer = await web.request(
            "POST", url, headers=JSON | {"Content-Type": "application/json"}, body=msgspec.json.encode(asked)
        )
    except CannotFetch as error:
        raise ProviderFailed(f"{host(url)}: {short(error)}") from error
    given = json_object(answer.body)
    if answer.status not in {200, 201}:
        reason = short(given.get("error_description") or given.get("error") or f"status {answer.status}")
        raise ProviderFailed(f"{host(url)} refuses to register Lockgate: {reason}")
    client = _client(given, redirect_uri, str(asked["token_endpoint_auth_method"]))
    return msgspec.structs.replace(client, issuer=metadata.issuer)


def _request(metadata: Metadata, redirect_uri: str, scopes: str) -> dict[str, Any]:
    """With a secret where that is possible: then a stolen refresh token is of no use alone."""
    confidential = not _BY_SECRET.isdisjoint(metadata.auth_methods)
    asked: dict[str, Any] = {
        "client_name": NAME,
        "redirect_uris": [redirect_uri],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": metadata.auth_method(secret=confidential),
    }
    return asked | ({"scope": scopes} if scopes else {})


def _client(given: dict[str, Any], redirect_uri: str, asked_method: str) -> Client:
    client_id, secret = given.get("client_id"), given.get("client_secret") or ""
    method = given.get("token_endpoint_auth_method") or asked_method
    expires_at = given.get("client_secret_expires_at") or 0
    if not isinstance(client_id, str) or not client_id or not isinstance(secret, str):
        raise ProviderFailed("it registers clients without telling their id")
    if method not in get_args(AuthMethod):
        raise ProviderFailed(f"it wants clients to authenticate by {short(method)}, which is not known here")
    return Client(
        client_id=client_id,
        client_secret=secret,
        auth_method=cast(AuthMethod, method) if secret else "none",
        registered_for=redirect_uri,
        expires_at=int(expires_at) if secret and isinstance(expires_at, int | float) else 0,
    )
