"""The account page: who I am, my password, the clients that act for me."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.responses import RedirectResponse, Response

from libs.common.control.entries import User as UserEntry
from libs.common.control.owner import Receipt
from libs.common.errors import LockgateError
from libs.common.web.session import Member
from services.auth.domain import TooManyAttempts, UnknownGrant, WrongPassword
from services.auth.parts import AuthParts, Parts, address_of

router = APIRouter(prefix="/account", include_in_schema=False)

NOTICES = {
    "disconnected": "The client is disconnected. Its next request will be refused.",
    "password": "Your password is changed. All your other logins have ended.",
    "pending": "The change is made, but not every gateway has confirmed it yet.",
}


@router.get("")
async def show_account(request: Request, member: Member, parts: AuthParts, done: str = "") -> Response:
    return await _page(request, member, parts, notice=NOTICES.get(done, ""))


@router.post("/password")
async def change_password(
    request: Request,
    member: Member,
    parts: AuthParts,
    present: Annotated[str, Form(max_length=4096)] = "",
    new: Annotated[str, Form(max_length=4096)] = "",
) -> Response:
    address, session = address_of(request), request.state.claims.grant
    try:
        parts.login_throttle.attempt(member.id, address)
        receipt = await parts.people.change_password(member, session, present, new, address)
    except LockgateError as error:
        if not isinstance(error, WrongPassword | TooManyAttempts):
            parts.login_throttle.forgive(member.id, address)
        problem = error.detail or f"{error.title}."
        return await _page(request, member, parts, problem=problem, status=error.status)
    parts.login_throttle.forgive(member.id, address)
    return _done("password", receipt)


@router.post("/grants/{grant_id}/disconnect")
async def disconnect(request: Request, member: Member, parts: AuthParts, grant_id: str) -> Response:
    grant = await asyncio.to_thread(parts.store.grants.get, grant_id)
    if grant.user_id != member.id:
        raise UnknownGrant
    receipt = await parts.people.revoke_grant(member, grant, address_of(request))
    return _done("disconnected", receipt)


@router.post("/sign-out-everywhere")
async def sign_out_everywhere(request: Request, member: Member, parts: AuthParts) -> Response:
    """Ends this login too."""
    await parts.people.sign_out_everywhere(member, member.id)
    response = RedirectResponse("/login?next=/account", 303)
    parts.logins.clear_cookies(response)
    return response


def _done(notice: str, receipt: Receipt) -> Response:
    return RedirectResponse(f"/account?done={notice if receipt.complete else 'pending'}", 303)


async def _page(
    request: Request,
    member: UserEntry,
    parts: Parts,
    *,
    notice: str = "",
    problem: str = "",
    status: int = 200,
) -> Response:
    grants = await asyncio.to_thread(parts.store.grants.live_of, member.id)
    return parts.pages.render(
        request, "account.html", status=status, grants=grants, notice=notice, problem=problem
    )
