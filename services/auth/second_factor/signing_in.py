"""`/login/second-factor`, after the password, and `/login/passkey`, instead of it."""

from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.responses import Response

from libs.common.errors import LockgateError, NotFound
from libs.common.web import notices
from libs.common.web.notices import Notice
from libs.common.web.session import refuse_cross_site
from services.auth.audit import auth_event
from services.auth.domain import User, email_key
from services.auth.login import admit, target_of
from services.auth.parts import AuthParts, Parts, address_of
from services.auth.second_factor import totp
from services.auth.second_factor.asking import PLACE, Asked, answered, asked
from services.auth.second_factor.domain import BadPasskey, FactorRequired, NothingPending, WrongCode
from services.auth.second_factor.passkeys import new_challenge

router = APIRouter(prefix="/login", include_in_schema=False)

Code = Annotated[str, Form(max_length=100)]
Credential = Annotated[str, Form(max_length=16_384)]

INACTIVE = "This account is deactivated."


@router.get("/second-factor")
async def show_question(request: Request, parts: AuthParts) -> Response:
    try:
        return await _question(request, parts, await asked(request, parts))
    except NothingPending as error:
        return _again(parts, error)


@router.post("/second-factor")
async def answer(
    request: Request, parts: AuthParts, code: Code = "", credential: Credential = ""
) -> Response:
    """A code, or what a passkey says."""
    refuse_cross_site(request, parts.settings)
    try:
        question = await asked(request, parts, attempt=True)
        if question.new_app:
            raise FactorRequired
        try:
            how = await _check(request, parts, question, code, credential)
        except LockgateError as error:
            return await _question(request, parts, question, error)
        await answered(request, parts)
    except (NothingPending, FactorRequired) as error:
        return _again(parts, error)
    return await _enter(request, parts, question.user, question.next, f"password and {how}")


@router.post("/second-factor/app")
async def set_up_app(request: Request, parts: AuthParts, code: Code = "") -> Response:
    """Somebody who has to have a second factor confirms their authenticator app, and is in."""
    refuse_cross_site(request, parts.settings)
    try:
        question = await asked(request, parts, attempt=True)
        if not question.new_app or (await parts.second_factors.of(question.user.id)).any:
            raise NothingPending
        address = address_of(request)
        try:
            codes = await parts.second_factors.add_totp(question.user, question.new_app, code, address)
        except WrongCode as error:
            return await _question(request, parts, question, error)
        await answered(request, parts)
    except NothingPending as error:
        return _again(parts, error)
    entered = await _enter(request, parts, question.user, question.next, "password and new authenticator app")
    page = parts.pages.render(request, "recovery_codes.html", codes=codes, next=question.next)
    for cookie in entered.headers.getlist("set-cookie"):
        page.headers.append("set-cookie", cookie)
    return page


@router.get("/passkey")
async def show_passkey(request: Request, parts: AuthParts, next: str = "/") -> Response:
    return await _passkey_page(request, parts, target_of(next))


@router.post("/passkey")
async def sign_in_by_passkey(request: Request, parts: AuthParts, credential: Credential = "") -> Response:
    refuse_cross_site(request, parts.settings)
    _require_passkeys(parts)
    ceremony = await parts.ceremonies.take(request, "passkey")
    if ceremony is None:
        return _again(parts, NothingPending())
    target = ceremony.data["next"]
    try:
        user = await parts.passkeys.check(credential, ceremony.data["challenge"])
        if not parts.settings.admits_password_of(user.email):
            raise BadPasskey("Passkeys are switched off here: sign in by your organization.")
    except LockgateError as error:
        _refused(request, parts, "wrong_passkey")
        return await _passkey_page(request, parts, target, error)
    return await _enter(request, parts, user, target, "passkey")


async def _check(request: Request, parts: Parts, question: Asked, code: str, credential: str) -> str:
    """How the person has proven themselves, in words. Raises a `LockgateError` if they have not."""
    user, address = question.user, address_of(request)
    if not credential:
        device = parts.devices.find(request, email_key(user.email))
        return await parts.second_factors.check_code(user, code, address, device)
    try:
        await parts.passkeys.check(credential, question.challenge, owner=user.id)
    except BadPasskey:
        event = auth_event("second_factor_failed", refused="wrong_passkey", user=user, address=address)
        parts.journal.append(event)
        raise
    return "passkey"


async def _enter(request: Request, parts: Parts, user: User, target: str, how: str) -> Response:
    entered = await admit(request, parts, user, target, how)
    if entered is None:
        _refused(request, parts, "inactive", user.email)
        return notices.redirect("/login", Notice(INACTIVE, "bad"), parts.settings)
    account = email_key(user.email)
    parts.devices.remember(entered, account, parts.devices.find(request, account))
    parts.ceremonies.clear_cookie(entered, "second_factor")
    return entered


def _again(parts: Parts, error: LockgateError) -> Response:
    return notices.redirect(
        "/login", Notice(f"{error.title}. {error.detail}".strip(), "warn"), parts.settings
    )


def _refused(request: Request, parts: Parts, reason: str, email: str = "") -> None:
    parts.audit.by_anybody(
        auth_event("signed_in", refused=reason, email=email, address=address_of(request), detail="passkey")
    )


async def _question(
    request: Request, parts: Parts, question: Asked, error: LockgateError | None = None
) -> Response:
    factors = await parts.second_factors.of(question.user.id)
    secret = parts.sealing.open(question.new_app, question.user.id) if question.new_app else ""
    usable = factors.passkeys if parts.passkeys.possible else ()
    response = parts.pages.render(
        request,
        "second_factor_app.html" if secret else "second_factor.html",
        status=error.status if error else 200,
        person=question.user,
        factors=factors,
        options=parts.passkeys.request_options(question.challenge, usable) if usable else "",
        problem=f"{error.title}. {error.detail}" if error else "",
        secret=totp.readable(secret),
        qr=totp.qr_svg(totp.app_uri(secret, question.user.email, parts.passkeys.host)) if secret else "",
        action=f"{PLACE}/app" if secret else PLACE,
    )
    response.headers.update(error.headers if error else {})
    return response


async def _passkey_page(
    request: Request, parts: Parts, target: str, error: LockgateError | None = None
) -> Response:
    _require_passkeys(parts)
    challenge = new_challenge()
    secret = await parts.ceremonies.begin(request, "passkey", {"next": target, "challenge": challenge})
    response = parts.pages.render(
        request,
        "passkey.html",
        status=403 if error else 200,
        next=target,
        options=parts.passkeys.request_options(challenge),
        problem=f"{error.title}. {error.detail}" if error else "",
    )
    parts.ceremonies.set_cookie(response, "passkey", secret)
    return response


def _require_passkeys(parts: Parts) -> None:
    if not parts.passkeys.possible or not parts.settings.admits_passwords:
        raise NotFound("Nobody signs in by passkey here.")
