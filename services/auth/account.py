"""The account page: who I am, my password, my logins, the clients that act for me."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.responses import Response

from libs.common.control.entries import User as UserEntry
from libs.common.control.owner import Receipt
from libs.common.errors import LockgateError
from libs.common.web import notices
from libs.common.web.session import Member
from services.auth.domain import TooManyAttempts, UnknownGrant, UnknownSession, WrongPassword
from services.auth.parts import AuthParts, Parts, address_of

router = APIRouter(prefix="/account", include_in_schema=False)


@router.get("")
async def show_account(request: Request, member: Member, parts: AuthParts) -> Response:
    return await _page(request, member, parts)


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
    return _done(parts, "Your password is changed. All your other logins have ended.", receipt)


@router.post("/grants/{grant_id}/disconnect")
async def disconnect(request: Request, member: Member, parts: AuthParts, grant_id: str) -> Response:
    grant = await asyncio.to_thread(parts.store.grants.get, grant_id)
    if grant.user_id != member.id:
        raise UnknownGrant
    receipt = await parts.people.revoke_grant(member, grant, address_of(request))
    said = f"{grant.client_name} is disconnected: its next request will be refused."
    return _done(parts, said, receipt)


@router.post("/sessions/{session_id}/end")
async def end_session(request: Request, member: Member, parts: AuthParts, session_id: str) -> Response:
    session = await asyncio.to_thread(parts.store.sessions.get, session_id)
    if session.user_id != member.id:
        raise UnknownSession
    receipt = await parts.people.end_session(member, session, address_of(request))
    return _done(parts, "That login has ended.", receipt)


@router.post("/sign-out-everywhere")
async def sign_out_everywhere(request: Request, member: Member, parts: AuthParts) -> Response:
    """Ends this login too."""
    receipt = await parts.people.sign_out_everywhere(member, address_of(request))
    notice = notices.after("All your logins and connected clients have ended.", receipt)
    response = notices.redirect("/login?next=/account", notice, parts.settings)
    parts.logins.clear_cookies(response)
    return response


def _done(parts: Parts, said: str, receipt: Receipt) -> Response:
    return notices.redirect("/account", notices.after(said, receipt), parts.settings)


async def _page(
    request: Request, member: UserEntry, parts: Parts, *, problem: str = "", status: int = 200
) -> Response:
    response = parts.pages.render(
        request,
        "account.html",
        status=status,
        grants=await asyncio.to_thread(parts.store.grants.live_of, member.id),
        sessions=await asyncio.to_thread(parts.store.sessions.live_of, member.id),
        present=request.state.claims.grant,
        notice=notices.waiting(request),
        problem=problem,
    )
    return notices.shown(response, request)
