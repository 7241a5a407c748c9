"""The page where administrators keep the list of users."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Form, Request
from pydantic import BaseModel, Field
from starlette.responses import RedirectResponse, Response

from libs.common.control.entries import Role
from libs.common.control.owner import Receipt
from libs.common.errors import LockgateError
from libs.common.web.session import Administrator
from services.auth.domain import User
from services.auth.parts import AuthParts, Parts

router = APIRouter(prefix="/users", include_in_schema=False)


class NewUserForm(BaseModel):
    email: str = Field("", max_length=254)
    name: str = Field("", max_length=200)
    role: Role = "member"


PAGE = 100
NOTICES = {
    "activated": "The account is active again.",
    "deactivated": "The account is deactivated: no login and no client of theirs is admitted any more.",
    "role": "The role is changed.",
    "signed-out": "All their logins and connected clients have ended.",
    "pending": "The change is made, but not every gateway has confirmed it yet.",
}


@router.get("")
async def show_users(
    request: Request, admin: Administrator, parts: AuthParts, after: str = "", done: str = ""
) -> Response:
    return await _page(request, parts, after=after, notice=NOTICES.get(done, ""))


@router.post("")
async def add_user(
    request: Request,
    admin: Administrator,
    parts: AuthParts,
    new: Annotated[NewUserForm, Form()],
) -> Response:
    try:
        user, password, _ = await parts.people.add(admin, new.email, new.name, new.role, None)
    except LockgateError as error:
        problem = error.detail or error.title
        return await _page(request, parts, problem=problem, status=error.status, form=new)
    # Not a redirect: the password exists in this answer only.
    return await _page(request, parts, added=user, password=password)


@router.post("/{user_id}/active")
async def set_active(
    request: Request, admin: Administrator, parts: AuthParts, user_id: str, active: Annotated[bool, Form()]
) -> Response:
    return await _change(
        request, parts, admin, user_id, "activated" if active else "deactivated", active=active
    )


@router.post("/{user_id}/role")
async def set_role(
    request: Request, admin: Administrator, parts: AuthParts, user_id: str, role: Annotated[Role, Form()]
) -> Response:
    return await _change(request, parts, admin, user_id, "role", role=role)


@router.post("/{user_id}/sign-out-everywhere")
async def sign_out_everywhere(admin: Administrator, parts: AuthParts, user_id: str) -> Response:
    _, receipt = await parts.people.sign_out_everywhere(admin, user_id)
    return _done("signed-out", receipt)


async def _change(
    request: Request,
    parts: Parts,
    admin: Administrator,
    user_id: str,
    notice: str,
    *,
    role: Role | None = None,
    active: bool | None = None,
) -> Response:
    try:
        _, receipt = await parts.people.change(admin, user_id, role=role, active=active)
    except LockgateError as error:
        problem = f"{error.title}. {error.detail}"
        return await _page(request, parts, problem=problem, status=error.status)
    return _done(notice, receipt)


def _done(notice: str, receipt: Receipt) -> Response:
    return RedirectResponse(f"/users?done={notice if receipt.complete else 'pending'}", 303)


async def _page(
    request: Request,
    parts: Parts,
    *,
    after: str = "",
    notice: str = "",
    problem: str = "",
    status: int = 200,
    form: NewUserForm | None = None,
    added: User | None = None,
    password: str | None = None,
) -> Response:
    users = await asyncio.to_thread(parts.store.users.page, after, PAGE)
    return parts.pages.render(
        request,
        "users.html",
        status=status,
        users=users,
        more=users[-1].id if len(users) == PAGE else "",
        after=after,
        notice=notice,
        problem=problem,
        form=form or NewUserForm(),
        added=added,
        password=password,
    )
