"""The page where administrators see who there is, and invite people. `user.py` is the page of one of them."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Form, Request
from pydantic import BaseModel, Field
from starlette.responses import Response

from libs.common.control.entries import Role
from libs.common.errors import LockgateError
from libs.common.web import notices
from libs.common.web.session import Administrator
from services.auth.domain import ROLES
from services.auth.links import NewLink
from services.auth.parts import AuthParts, Parts

router = APIRouter(prefix="/users", include_in_schema=False)

PAGE = 100


class InvitationForm(BaseModel):
    email: str = Field("", max_length=254)
    name: str = Field("", max_length=200)
    role: Role = "member"


@router.get("")
async def show_users(request: Request, admin: Administrator, parts: AuthParts, after: str = "") -> Response:
    return await _page(request, parts, after=after)


@router.post("")
async def invite(
    request: Request, admin: Administrator, parts: AuthParts, new: Annotated[InvitationForm, Form()]
) -> Response:
    try:
        link = await parts.links.invite(admin, new.email, new.name, new.role)
    except LockgateError as error:
        problem = error.detail or error.title
        return await _page(request, parts, problem=problem, status=error.status, form=new)
    # Not a redirect: the link exists in this answer only.
    return await _page(request, parts, link=link)


async def _page(
    request: Request,
    parts: Parts,
    *,
    after: str = "",
    problem: str = "",
    status: int = 200,
    form: InvitationForm | None = None,
    link: NewLink | None = None,
) -> Response:
    users = await asyncio.to_thread(parts.store.users.page, after, PAGE)
    response = parts.pages.render(
        request,
        "users.html",
        status=status,
        users=users,
        more=users[-1].id if len(users) == PAGE else "",
        after=after,
        notice=notices.waiting(request),
        problem=problem,
        form=form or InvitationForm(),
        link=link,
        holds=notices.holds(link.receipt) if link else "",
        roles=ROLES,
    )
    return notices.shown(response, request)
