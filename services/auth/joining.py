"""`/login/invitation/{secret}`, `/login/reset/{secret}`: what a person does with an administrator's link.

A link that is used, replaced, expired, unknown, or of somebody who is gone is answered in one and the same
way. Looking at it does not use it up: programs that preview links do that too.
"""

from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.responses import Response

from libs.common.errors import Forbidden, LockgateError
from libs.common.web import notices
from libs.common.web.session import refuse_cross_site
from services.auth.domain import BadLink, LinkPurpose, User
from services.auth.login import admit
from services.auth.parts import AuthParts, Parts, address_of
from services.auth.second_factor import asking

router = APIRouter(prefix="/login", include_in_schema=False)


class PasswordsOff(Forbidden):
    """A link would set a password that admits to nothing, or be a way around the organization's provider."""

    type, title = "passwords-off", "You sign in with your organization's account"


Password = Annotated[str, Form(max_length=4096)]


@router.get("/invitation/{secret}")
async def show_invitation(request: Request, parts: AuthParts, secret: str) -> Response:
    return await _form(request, parts, "invitation", secret)


@router.get("/reset/{secret}")
async def show_reset(request: Request, parts: AuthParts, secret: str) -> Response:
    return await _form(request, parts, "reset", secret)


@router.post("/invitation/{secret}")
async def accept(request: Request, parts: AuthParts, secret: str, password: Password = "") -> Response:
    """Set the password and sign in."""
    refuse_cross_site(request, parts.settings)
    try:
        await _check(parts, "invitation", secret)
        user = await parts.links.accept(secret, password, address_of(request))
    except LockgateError as error:
        return await _form(request, parts, "invitation", secret, error)
    if question := await asking.ask(request, parts, user, "/account"):
        return question
    entered = await admit(request, parts, user, "/account", "invitation")
    return entered or await _form(request, parts, "invitation", secret)


@router.post("/reset/{secret}")
async def reset(request: Request, parts: AuthParts, secret: str, password: Password = "") -> Response:
    """Set the password; to sign in with it comes next, with whatever else that takes."""
    refuse_cross_site(request, parts.settings)
    try:
        await _check(parts, "reset", secret)
        receipt = await parts.links.reset(secret, password, address_of(request))
    except LockgateError as error:
        return await _form(request, parts, "reset", secret, error)
    said = "Your new password is set. All your logins and connected clients have ended."
    return notices.redirect("/login?next=/account&again=true", notices.after(said, receipt), parts.settings)


async def _check(parts: Parts, purpose: LinkPurpose, secret: str) -> User:
    """The person who may set a password by the link. Raises `BadLink`, `PasswordsOff`."""
    person = await parts.links.find(purpose, secret)
    if not parts.settings.admits_password_of(person.email):
        raise PasswordsOff
    return person


async def _form(
    request: Request, parts: Parts, purpose: LinkPurpose, secret: str, error: LockgateError | None = None
) -> Response:
    try:
        person = await _check(parts, purpose, secret)
    except BadLink as bad:
        return parts.pages.render(request, "invitation_over.html", status=bad.status)
    except PasswordsOff as off:
        return parts.pages.render(request, "invitation_elsewhere.html", status=off.status)
    return parts.pages.render(
        request,
        f"{purpose}.html",
        status=error.status if error else 200,
        person=person,
        secret=secret,
        problem=(error.detail or error.title) if error else "",
    )
