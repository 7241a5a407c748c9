"""`/oauth/device`: where a person types the code that a client without a browser shows (RFC 8628, 3.3).

The client may be somebody else's who hopes that a person with an account types its code (section 5.4), so the
page asks before it allows, with the code, the client and what it may reach in sight.
"""

import asyncio
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Form, Request
from starlette.responses import RedirectResponse, Response

from libs.common.web.session import refuse_cross_site
from services.auth.audit import auth_event, server_of
from services.auth.domain import DeviceCode, TooManyAttempts
from services.auth.logins import Login
from services.auth.oauth.device_grant import allowed_by, normal_user_code
from services.auth.oauth.resources import gateway_audience
from services.auth.parts import AuthParts, Parts, address_of

router = APIRouter(include_in_schema=False)

PATH = "/oauth/device"
UNKNOWN = "There is no such code, or it has expired."


@router.get(PATH)
async def show(request: Request, parts: AuthParts, user_code: str = "") -> Response:
    """The form for the code, or, once it is known, what it stands for."""
    login = await parts.logins.find(request)
    if login is None:
        here = f"{PATH}?{request.url.query}" if request.url.query else PATH
        return RedirectResponse(f"/login?next={quote(here, safe='')}", 303)
    if not user_code:
        return _form(request, parts)
    return await _found(request, parts, login, user_code)


@router.post(PATH)
async def decide(
    request: Request,
    parts: AuthParts,
    user_code: Annotated[str, Form(max_length=64)] = "",
    decision: Annotated[str, Form()] = "",
) -> Response:
    """What the person says: `allow`, or anything else."""
    refuse_cross_site(request, parts.settings)
    login = await parts.logins.find(request)
    if login is None:
        return RedirectResponse(f"/login?next={quote(PATH, safe='')}", 303)
    try:
        code = await _look_up(parts, login, user_code)
    except TooManyAttempts as error:
        return _form(request, parts, user_code, f"Too many attempts. {error.detail}", error)
    if code is None:
        return _form(request, parts, user_code, UNKNOWN)
    allowed = decision == "allow"
    choice = allowed_by(login.user, code) if allowed else None
    if not await asyncio.to_thread(parts.store.device_codes.decide, code, choice):
        return _form(request, parts, user_code, "The code has expired. Start again on your device.")
    parts.journal.append(
        auth_event(
            "consented",
            refused="" if allowed else "denied_by_user",
            user=login.user,
            client=await asyncio.to_thread(parts.store.clients.get, code.client_id),
            address=address_of(request),
            server=server_of(code.audience),
            detail="by device code",
        )
    )
    return parts.pages.render(request, "device_done.html", allowed=allowed, code=code)


async def _found(request: Request, parts: Parts, login: Login, user_code: str) -> Response:
    try:
        code = await _look_up(parts, login, user_code)
    except TooManyAttempts as error:
        return _form(request, parts, user_code, f"Too many attempts. {error.detail}", error)
    if code is None:
        return _form(request, parts, user_code, UNKNOWN)
    return parts.pages.render(
        request,
        "device.html",
        code=code,
        person=login.user,
        server=server_of(code.audience),
        whole_gateway=code.audience == gateway_audience(parts.settings.public_url),
    )


async def _look_up(parts: Parts, login: Login, user_code: str) -> DeviceCode | None:
    """Raises `TooManyAttempts` for who guesses."""
    parts.device_throttle.attempt(login.user.id)
    code = await asyncio.to_thread(parts.store.device_codes.waiting, normal_user_code(user_code))
    if code:
        parts.device_throttle.forgive(login.user.id)
    return code


def _form(
    request: Request,
    parts: Parts,
    user_code: str = "",
    problem: str = "",
    error: TooManyAttempts | None = None,
) -> Response:
    status = error.status if error else 404 if problem else 200
    response = parts.pages.render(
        request, "device_code.html", status=status, user_code=user_code, problem=problem
    )
    response.headers.update(error.headers if error else {})
    return response
