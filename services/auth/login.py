"""Signing in and out: `/login`, `/logout`."""

import asyncio
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Form, Request
from starlette.responses import RedirectResponse, Response

from libs.common.errors import Unavailable
from libs.common.records import AuthEvent
from libs.common.throttle import source_of
from libs.common.web.session import refuse_cross_site, safe_next
from services.auth.audit import auth_event
from services.auth.control import revoked_key
from services.auth.domain import TooManyAttempts, User, email_key
from services.auth.logins import Login
from services.auth.parts import AuthParts, Parts, address_of

router = APIRouter(include_in_schema=False)


@router.get("/login")
async def show_login(request: Request, parts: AuthParts, next: str = "/") -> Response:
    """The form; for somebody who is signed in, a fresh console cookie and back."""
    target = _target(next)
    login = await parts.logins.find(request)
    if login:
        return await _enter(request, parts, login, target)
    return _form(request, parts, target)


@router.post("/login")
async def sign_in(
    request: Request,
    parts: AuthParts,
    email: Annotated[str, Form(max_length=320)] = "",
    password: Annotated[str, Form(max_length=4096)] = "",
    next: Annotated[str, Form()] = "/",
) -> Response:
    refuse_cross_site(request, parts.settings)
    target, address, account = _target(next), address_of(request), email_key(email)
    device = parts.devices.find(request, account)
    try:
        parts.login_throttle.attempt(account, address, device)
    except TooManyAttempts as error:
        parts.audit.throttled(_refused("throttled", email, address))
        problem = f"Too many attempts. {error.detail}"
        return _form(request, parts, target, email=email, problem=problem, error=error)
    try:
        user = await _authenticate(parts, email, password, "" if device else source_of(address))
    except Unavailable:
        parts.login_throttle.forgive(account, address, device)
        raise
    begun = await parts.logins.begin(user) if user else None
    if begun is None:
        reason = "wrong_password" if user is None else "inactive"
        parts.audit.by_anybody(_refused(reason, email, address))
        problem = "The e-mail address or the password is not right."
        return _form(request, parts, target, email=email, problem=problem)
    parts.login_throttle.forgive(account, address, device)
    await _leave(request, parts)
    login, secret = begun
    parts.journal.append(auth_event("signed_in", user=login.user, address=address))
    response = await _enter(request, parts, login, target)
    parts.logins.set_login_cookie(response, secret)
    parts.devices.remember(response, account, device)
    return response


@router.post("/logout")
async def sign_out(request: Request, parts: AuthParts, next: Annotated[str, Form()] = "/") -> Response:
    """End the login of this browser, everywhere, before saying so."""
    refuse_cross_site(request, parts.settings)
    await _leave(request, parts)
    response = RedirectResponse(f"/login?next={quote(_target(next), safe='')}", 303)
    parts.logins.clear_cookies(response)
    return response


def _target(next: str) -> str:
    target = safe_next(next)
    return "/" if target.startswith(("/login", "/logout")) else target


async def _authenticate(parts: Parts, email: str, password: str, stranger: str) -> User | None:
    """The user whose password it is. The same work is done for an address that nobody has. Raises
    `Unavailable` without having looked at the password."""
    found = await asyncio.to_thread(parts.store.users.by_email, email)
    user, password_hash = found or (None, None)
    verdict = await parts.passwords.verify(password_hash, password, stranger)
    if user is None or not verdict.right:
        return None
    if verdict.new_hash:
        await asyncio.to_thread(parts.store.users.set_password, user.id, verdict.new_hash)
    return user


async def _leave(request: Request, parts: Parts) -> None:
    login = await parts.logins.find(request)
    if login is None:
        return
    ended = await parts.logins.end(login)
    parts.journal.append(auth_event("signed_out", user=login.user, address=address_of(request)))
    await parts.owner.publish(*map(revoked_key, ended))


async def _enter(request: Request, parts: Parts, login: Login, target: str) -> Response:
    response = RedirectResponse(target, 303)
    await parts.logins.set_console_cookie(response, login, request.app.state.doorkeeper)
    return response


def _form(
    request: Request,
    parts: Parts,
    target: str,
    *,
    email: str = "",
    problem: str = "",
    error: TooManyAttempts | None = None,
) -> Response:
    status = error.status if error else 401 if problem else 200
    response = parts.pages.render(
        request, "login.html", status=status, next=target, email=email, problem=problem
    )
    response.headers.update(error.headers if error else {})
    return response


def _refused(reason: str, email: str, address: str) -> AuthEvent:
    return auth_event("signed_in", refused=reason, email=email[:320], address=address)
