"""The page of one user, for administrators: the account, its logins, and the clients that act for it."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.responses import Response

from libs.common.control.entries import Role
from libs.common.control.owner import Receipt
from libs.common.errors import LockgateError
from libs.common.web import notices
from libs.common.web.session import Administrator
from services.auth.domain import ROLES, LinkPurpose, UnknownGrant, UnknownSession
from services.auth.links import NewLink
from services.auth.parts import AuthParts, Parts, address_of

router = APIRouter(prefix="/users/{user_id}", include_in_schema=False)


@router.get("")
async def show_user(request: Request, admin: Administrator, parts: AuthParts, user_id: str) -> Response:
    return await _page(request, parts, user_id)


@router.post("/active")
async def set_active(
    request: Request, admin: Administrator, parts: AuthParts, user_id: str, active: Annotated[bool, Form()]
) -> Response:
    said = (
        "The account is active again."
        if active
        else "The account is deactivated, and everything of theirs has ended."
    )
    return await _change(request, parts, admin, user_id, said, active=active)


@router.post("/role")
async def set_role(
    request: Request, admin: Administrator, parts: AuthParts, user_id: str, role: Annotated[Role, Form()]
) -> Response:
    return await _change(request, parts, admin, user_id, f"The role is {role} now.", role=role)


@router.post("/invitation")
async def invite_again(request: Request, admin: Administrator, parts: AuthParts, user_id: str) -> Response:
    return await _offer(request, parts, admin, user_id, "invitation")


@router.post("/password-reset")
async def offer_reset(request: Request, admin: Administrator, parts: AuthParts, user_id: str) -> Response:
    return await _offer(request, parts, admin, user_id, "reset")


@router.post("/sign-out-everywhere")
async def sign_out_everywhere(admin: Administrator, parts: AuthParts, user_id: str) -> Response:
    _, receipt = await parts.people.end_all(admin, user_id)
    return _done(parts, user_id, "All their logins and connected clients have ended.", receipt)


@router.post("/delete")
async def delete(request: Request, admin: Administrator, parts: AuthParts, user_id: str) -> Response:
    try:
        user, receipt = await parts.people.delete(admin, user_id)
    except LockgateError as error:
        return await _page(request, parts, user_id, error=error)
    return notices.redirect("/users", notices.after(f"{user.email} is deleted.", receipt), parts.settings)


@router.post("/grants/{grant_id}/disconnect")
async def disconnect(
    request: Request, admin: Administrator, parts: AuthParts, user_id: str, grant_id: str
) -> Response:
    grant = await asyncio.to_thread(parts.store.grants.get, grant_id)
    if grant.user_id != user_id:
        raise UnknownGrant
    receipt = await parts.people.revoke_grant(admin, grant, address_of(request))
    return _done(parts, user_id, f"{grant.client_name} is disconnected.", receipt)


@router.post("/sessions/{session_id}/end")
async def end_session(
    request: Request, admin: Administrator, parts: AuthParts, user_id: str, session_id: str
) -> Response:
    session = await asyncio.to_thread(parts.store.sessions.get, session_id)
    if session.user_id != user_id:
        raise UnknownSession
    receipt = await parts.people.end_session(admin, session, address_of(request))
    return _done(parts, user_id, "The login has ended.", receipt)


async def _change(
    request: Request,
    parts: Parts,
    admin: Administrator,
    user_id: str,
    said: str,
    *,
    role: Role | None = None,
    active: bool | None = None,
) -> Response:
    try:
        _, receipt = await parts.people.change(admin, user_id, role=role, active=active)
    except LockgateError as error:
        return await _page(request, parts, user_id, error=error)
    return _done(parts, user_id, said, receipt)


async def _offer(
    request: Request, parts: Parts, admin: Administrator, user_id: str, purpose: LinkPurpose
) -> Response:
    try:
        link = await parts.links.renew(admin, user_id, purpose)
    except LockgateError as error:
        return await _page(request, parts, user_id, error=error)
    # Not a redirect: the link exists in this answer only.
    return await _page(request, parts, user_id, link=link)


def _done(parts: Parts, user_id: str, said: str, receipt: Receipt) -> Response:
    return notices.redirect(f"/users/{user_id}", notices.after(said, receipt), parts.settings)


async def _page(
    request: Request,
    parts: Parts,
    user_id: str,
    *,
    error: LockgateError | None = None,
    link: NewLink | None = None,
) -> Response:
    person = await asyncio.to_thread(parts.store.users.get, user_id)
    response = parts.pages.render(
        request,
        "user.html",
        status=error.status if error else 200,
        person=person,
        grants=await asyncio.to_thread(parts.store.grants.live_of, user_id),
        sessions=await asyncio.to_thread(parts.store.sessions.live_of, user_id),
        present=request.state.claims.grant,
        notice=notices.waiting(request),
        problem=f"{error.title}. {error.detail}".strip() if error else "",
        link=link,
        roles=ROLES,
    )
    return notices.shown(response, request)
