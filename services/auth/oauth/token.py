"""The token endpoint (RFC 6749, section 3.2), and those for devices (RFC 8628), revocation (RFC 7009) and
introspection (RFC 7662)."""

import asyncio
from collections.abc import Callable

from authlib.oauth2.rfc6749 import InvalidRequestError, OAuth2Error
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from libs.common.errors import BadRequest, NotFound
from libs.common.throttle import source_of
from services.auth.control import revoked_key
from services.auth.domain import TooManyAttempts
from services.auth.oauth.errors import SlowDown, printable
from services.auth.oauth.server import OAuthRequest, Reply
from services.auth.parts import Parts, address_of, parts_of

_FORM = "application/x-www-form-urlencoded"
_NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}


async def token(request: Request) -> Response:
    parts = parts_of(request)
    reply, _ = await _run(request, parts, parts.oauth.create_token_response)
    return render(reply)


async def authorize_device(request: Request) -> Response:
    """Where a client without a browser begins (RFC 8628, section 3.1)."""
    parts = parts_of(request)

    def work(oauth: OAuthRequest) -> Reply:
        reply: Reply = parts.oauth.create_endpoint_response("device_authorization", oauth)
        return reply

    try:
        parts.registration_throttle.attempt(source_of(address_of(request)))
    except TooManyAttempts as error:
        response = render(parts.oauth.handle_error_response(None, SlowDown("Too many requests.")))
        response.headers.update(error.headers)
        return response
    reply, _ = await _run(request, parts, work)
    return render(reply)


async def revoke(request: Request) -> Response:
    """Answers 200 when the token is refused everywhere, 503 when that takes longer (RFC 7009, 2.2.1)."""
    parts = parts_of(request)

    def work(oauth: OAuthRequest) -> Reply:
        reply: Reply = parts.oauth.create_endpoint_response("revocation", oauth)
        return reply

    reply, complete = await _run(request, parts, work)
    if reply.status == 200 and not complete:
        pending = {"error": "temporarily_unavailable", "error_description": "Not confirmed everywhere yet."}
        return JSONResponse(pending, 503, {**_NO_STORE, "Retry-After": "5"})
    return render(reply)


async def introspect(request: Request) -> Response:
    """What a token is worth, for the organization's own services (RFC 7662)."""
    parts = parts_of(request)

    def work(oauth: OAuthRequest) -> Reply:
        reply: Reply = parts.oauth.create_endpoint_response("introspection", oauth)
        return reply

    reply, _ = await _run(request, parts, work)
    return render(reply)


async def settle(parts: Parts, request: OAuthRequest) -> bool:
    """Publish and record what a request brought about. Whether that holds on every replica now."""
    for event in request.outcome.events:
        parts.journal.append(event)
    for event in request.outcome.refusals:
        parts.audit.by_anybody(event)
    if not request.outcome.revoked:
        return True
    receipt = await parts.owner.publish(*map(revoked_key, request.outcome.revoked))
    return receipt.complete


def render(reply: Reply) -> Response:
    return JSONResponse(reply.body, reply.status, {**reply.headers, **_NO_STORE})


async def _run(request: Request, parts: Parts, work: Callable[[OAuthRequest], Reply]) -> tuple[Reply, bool]:
    try:
        oauth = await _read(request)
    except OAuth2Error as error:
        return parts.oauth.handle_error_response(None, error), True
    try:
        reply = await asyncio.to_thread(work, oauth)
    except NotFound:  # a user or grant that went away in the middle of it
        reply = Reply(400, {"error": "invalid_grant"}, {})
    except BadRequest:  # characters that PostgreSQL does not store, in what should be an id
        reply = Reply(400, {"error": "invalid_request"}, {})
    return reply, await settle(parts, oauth)


async def _read(request: Request) -> OAuthRequest:
    """The request as Authlib takes it. Raises `OAuth2Error`."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        raise InvalidRequestError(f"The body has to be {_FORM}.")
    async with request.form() as form:
        items = [(name, value) for name, value in form.multi_items() if isinstance(value, str)]
    names = [name for name, _ in items if name != "resource"]
    if len(names) != len(set(names)):
        repeated = next(name for name in names if names.count(name) > 1)
        raise InvalidRequestError(f"The parameter {printable(repeated)} is given more than once.")
    headers = {"Authorization": request.headers.get("authorization", "")}
    return OAuthRequest(request.method, items, headers, address_of(request))
