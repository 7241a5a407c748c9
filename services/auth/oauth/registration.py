"""Dynamic client registration (RFC 7591), open to everybody: a client by itself can do nothing.

What a client asks for and we do not have is replaced by what we have, as section 3.2.1 allows.
"""

import asyncio
from typing import Annotated, Any

from authlib.oauth2.rfc6749 import OAuth2Error
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from libs.common.ids import new_id, new_secret
from libs.common.throttle import source_of
from services.auth.audit import auth_event
from services.auth.domain import (
    DEVICE_GRANT,
    GRANT_TYPES,
    USUAL_GRANT_TYPES,
    AuthMethod,
    Client,
    TooManyAttempts,
)
from services.auth.keys import hash_of
from services.auth.oauth.errors import InvalidClientMetadata, InvalidRedirectUri, SlowDown, printable
from services.auth.oauth.redirects import problem
from services.auth.oauth.server import SCOPES
from services.auth.oauth.token import render
from services.auth.parts import address_of, parts_of
from services.auth.store.database import unix_now

PUBLIC: AuthMethod = "none"
Name = Annotated[str, StringConstraints(max_length=200, strip_whitespace=True)]


class ClientMetadata(BaseModel):
    """What we use of a registration request (RFC 7591, section 2). A null stands for an absent member."""

    model_config = ConfigDict(extra="ignore", strict=True)

    redirect_uris: list[str] = Field(default=[], max_length=20)
    client_name: Name = ""
    token_endpoint_auth_method: AuthMethod = PUBLIC
    grant_types: list[str] = list(USUAL_GRANT_TYPES)
    response_types: list[str] = ["code"]

    @field_validator("client_name")
    @classmethod
    def _visible(cls, value: str) -> str:
        """Without characters that would let a name look like another text on the consent page."""
        return "".join(c for c in value if c.isprintable())


async def register(request: Request) -> Response:
    parts = parts_of(request)
    address = address_of(request)
    try:
        parts.registration_throttle.attempt(source_of(address))
        asked = _parse(await request.body())
    except TooManyAttempts as error:
        refused = SlowDown("Too many registrations from this address.")
        response = render(parts.oauth.handle_error_response(None, refused))
        response.headers.update(error.headers)
        return response
    except OAuth2Error as error:
        return render(parts.oauth.handle_error_response(None, error))
    secret = None if asked.token_endpoint_auth_method == PUBLIC else new_secret()
    client = _client(asked, secret)
    await asyncio.to_thread(parts.store.clients.put, client)
    detail = " ".join(client.redirect_uris)[:2000]
    parts.audit.by_anybody(auth_event("client_registered", client=client, address=address, detail=detail))
    return JSONResponse(_answer(client, secret), 201, {"Cache-Control": "no-store", "Pragma": "no-cache"})


def _parse(body: bytes) -> ClientMetadata:
    """Raises `OAuth2Error` that says what is wrong with the request."""
    try:
        asked = ClientMetadata.model_validate_json(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "body"
        kind = InvalidRedirectUri if where.startswith("redirect_uris") else InvalidClientMetadata
        raise kind(printable(f"{where}: {first['msg']}")) from error
    for uri in asked.redirect_uris:
        if wrong := problem(uri):
            raise InvalidRedirectUri(printable(f"{uri[:200]} cannot be registered: {wrong}."))
    by_code = "code" in asked.response_types and GRANT_TYPES[0] in asked.grant_types
    if not by_code and DEVICE_GRANT not in asked.grant_types:
        raise InvalidClientMetadata("This server offers the authorization code and device code grants only.")
    if by_code and not asked.redirect_uris:
        raise InvalidRedirectUri("A client that gets authorization codes needs a redirect URI.")
    return asked


def _client(asked: ClientMetadata, secret: str | None) -> Client:
    return Client(
        id=new_id(),
        name=asked.client_name or "A client without a name",
        redirect_uris=tuple(asked.redirect_uris),
        grant_types=tuple(kind for kind in GRANT_TYPES if kind in asked.grant_types),
        auth_method=asked.token_endpoint_auth_method,
        secret_hash=hash_of(secret) if secret else "",
        created_at=unix_now(),
    )


def _answer(client: Client, secret: str | None) -> dict[str, Any]:
    """RFC 7591, section 3.2.1."""
    answer: dict[str, Any] = {
        "client_id": client.id,
        "client_id_issued_at": client.created_at,
        "client_name": client.name,
        "redirect_uris": list(client.redirect_uris),
        "grant_types": list(client.grant_types),
        "response_types": ["code"] if GRANT_TYPES[0] in client.grant_types else [],
        "token_endpoint_auth_method": client.auth_method,
        "scope": " ".join(SCOPES),
    }
    if secret:
        answer |= {"client_secret": secret, "client_secret_expires_at": 0}
    return answer
