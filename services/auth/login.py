"""Signing in and out: `/login`, `/logout`."""

import asyncio
from typing import Annotated
from urllib.parse import parse_qs, quote, urlsplit

from fastapi import APIRouter, Form, Request
from starlette.responses import RedirectResponse, Response

from libs.common.errors import Unavailable
from libs.common.records import AuthEvent
from libs.common.throttle import source_of
from libs.common.web import notices
from libs.common.web.session import refuse_cross_site, safe_next
from services.auth.audit import auth_event
from services.auth.control import revoked_key
from services.auth.domain import TooManyAttempts, User, email_key, normal_email
from services.auth.logins import Login
from services.auth.parts import AuthParts, Parts, address_of, agent_of
from services.auth.second_factor import asking

router = APIRouter(include_in_schema=False)


@router.get("/login")
async def show_login(request: Request, parts: AuthParts, next: str = "/", again: bool = False) -> Response:
    """The form; for somebody who is signed in, unless they are to do it again, a fresh console cookie and
    back."""
    target = target_of(next)
    login = await parts.logins.find(request)
    if login and not again:
        return await _enter(request, parts, login, target)
    return _form(request, parts, target, email=_hint(target))


@router.post("/login")
async def sign_in(
    request: Request,
    parts: AuthParts,
    email: Annotated[str, Form(max_length=320)] = "",
    password: Annotated[str, Form(max_length=4096)] = "",
    next: Annotated[str, Form()] = "/",
) -> Response:
    refuse_cross_site(request, parts.settings)
    target, address, account = target_of(next), address_of(request), email_key(email)
    if not parts.settings.admits_passwords:
        parts.audit.by_anybody(_refused("password_login_off", email, address))
        return _form(request, parts, target, problem="Nobody signs in by password here.")
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
    if user and user.active and (question := await asking.ask(request, parts, user, target)):
        parts.login_throttle.forgive(account, address, device)
        return question
    response = await admit(request, parts, user, target, "password") if user else None
    if response is None:
        reason = "wrong_password" if user is None else "inactive"
        parts.audit.by_anybody(_refused(reason, email, address))
        problem = "The e-mail address or the password is not right."
        return _form(request, parts, target, email=email, problem=problem)
    parts.login_throttle.forgive(account, address, device)
    parts.devices.remember(response, account, device)
    return response


async def admit(request: Request, parts: Parts, user: User, target: str, how: str) -> Response | None:
    """Begin a login for `user`, who has proven to be that (`how` is for the record), in place of the
    browser's former one, and lead to `target`. None when the user was deactivated in the meantime."""
    address = address_of(request)
    begun = await parts.logins.begin(user, address, agent_of(request))
    if begun is None:
        return None
    await _leave(request, parts)
    login, secret = begun
    parts.journal.append(auth_event("signed_in", user=login.user, address=address, detail=how))
    response = await _enter(request, parts, login, target)
    parts.logins.set_login_cookie(response, secret)
    return response


@router.post("/logout")
async def sign_out(request: Request, parts: AuthParts, next: Annotated[str, Form()] = "/") -> Response:
    """End the login of this browser, everywhere, before saying so."""
    refuse_cross_site(request, parts.settings)
    await _leave(request, parts)
    response = RedirectResponse(f"/login?next={quote(target_of(next), safe='')}", 303)
    parts.logins.clear_cookies(response)
    return response


def target_of(next: str) -> str:
    """Where to go after signing in: a path of ours, and not one that begins all over."""
    target = safe_next(next)
    return "/" if target.startswith(("/login", "/logout")) else target


def _hint(target: str) -> str:
    """The e-mail address that an authorization request names as that of its user (`login_hint`, OpenID
    Connect Core 1.0, section 3.1.2.1). Whether anybody has it plays no part."""
    hints = parse_qs(urlsplit(target).query).get("login_hint", [""])
    try:
        return normal_email(hints[0])
    except ValueError:
        return ""


async def _authenticate(parts: Parts, email: str, password: str, stranger: str) -> User | None:
    """The user whose password it is. The same work is done for an address that nobody has. Raises
    `Unavailable` without having looked at the password."""
    found = await asyncio.to_thread(parts.store.users.by_email, email)
    if found and not parts.settings.admits_password_of(email):
        found = None
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
    notice = notices.waiting(request)
    response = parts.pages.render(
        request,
        "login.html",
        status=status,
        next=target,
        email=email,
        problem=problem,
        notice=notice,
        provider=parts.provider.host if parts.provider else "",
        passwords=parts.settings.auth_password_login,
        passkeys=parts.passkeys.possible,
        again=request.query_params.get("again", ""),
    )
    response.headers.update(error.headers if error else {})
    return notices.shown(response, request)


def _refused(reason: str, email: str, address: str) -> AuthEvent:
    return auth_event("signed_in", refused=reason, email=email[:320], address=address)
