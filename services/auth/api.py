"""The HTTP API: users and grants."""

import asyncio
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from libs.common.clock import iso
from libs.common.control.entries import Role
from libs.common.control.owner import Receipt
from libs.common.errors import Forbidden
from libs.common.web.session import Administrator, Member
from services.auth.domain import Grant, UnknownGrant, User
from services.auth.parts import AuthParts, address_of

router = APIRouter(prefix="/api/auth")

After = Annotated[str, Query(max_length=64, description="Key of the last item of the page before.")]
Limit = Annotated[int, Query(ge=1, le=200)]


class NewUser(BaseModel):
    email: str = Field(max_length=254)
    name: str = Field("", max_length=200)
    role: Role = "member"
    password: str | None = Field(None, description="Generated and returned once unless given.")


class UserChange(BaseModel):
    """What is left out stays as it is."""

    name: str | None = Field(None, max_length=200)
    role: Role | None = None
    active: bool | None = None


class UserOut(BaseModel):
    id: str
    email: str
    name: str
    role: Role
    active: bool
    created_at: str


class ChangedUser(UserOut):
    receipt: Receipt


class CreatedUser(ChangedUser):
    password: str | None = Field(None, description="The generated password. It is shown this once.")


class UserPage(BaseModel):
    items: list[UserOut]
    next: str | None = Field(description="Give it as `after` for the next page.")


class GrantOut(BaseModel):
    id: str
    user: str
    client_id: str
    client_name: str
    redirect_host: str
    audience: str
    created_at: str
    last_used_at: str


class GrantPage(BaseModel):
    items: list[GrantOut]
    next: str | None


class RevokedGrant(BaseModel):
    id: str
    receipt: Receipt


@router.get("/users")
async def list_users(
    admin: Administrator, parts: AuthParts, after: After = "", limit: Limit = 100
) -> UserPage:
    users = await asyncio.to_thread(parts.store.users.page, after, limit)
    items = [UserOut(**_user(user)) for user in users]
    return UserPage(items=items, next=items[-1].id if len(items) == limit else None)


@router.post("/users")
async def add_user(admin: Administrator, parts: AuthParts, new: NewUser, response: Response) -> CreatedUser:
    user, password, receipt = await parts.people.add(admin, new.email, new.name, new.role, new.password)
    response.status_code = receipt.status
    response.headers["Cache-Control"] = "no-store"
    return CreatedUser(**_user(user), receipt=receipt, password=password)


@router.get("/users/{user_id}")
async def get_user(admin: Administrator, parts: AuthParts, user_id: str) -> UserOut:
    return UserOut(**_user(await asyncio.to_thread(parts.store.users.get, user_id)))


@router.patch("/users/{user_id}")
async def change_user(
    admin: Administrator, parts: AuthParts, user_id: str, change: UserChange, response: Response
) -> ChangedUser:
    user, receipt = await parts.people.change(
        admin, user_id, name=change.name, role=change.role, active=change.active
    )
    response.status_code = receipt.status
    return ChangedUser(**_user(user), receipt=receipt)


@router.post("/users/{user_id}/sign-out-everywhere")
async def sign_out_everywhere(
    admin: Administrator, parts: AuthParts, user_id: str, response: Response
) -> ChangedUser:
    user, receipt = await parts.people.sign_out_everywhere(admin, user_id)
    response.status_code = receipt.status
    return ChangedUser(**_user(user), receipt=receipt)


@router.get("/grants")
async def list_grants(
    member: Member,
    parts: AuthParts,
    user: Annotated[str, Query(description="Whose; one's own unless given.")] = "",
    after: After = "",
    limit: Limit = 100,
) -> GrantPage:
    """The clients that act for a user. Administrators may ask about anyone."""
    if user and user != member.id and member.role != "admin":
        raise Forbidden("Other people's connected clients are for administrators to see.")
    grants = await asyncio.to_thread(parts.store.grants.live_of, user or member.id, after, limit)
    items = [_grant(grant) for grant in grants]
    return GrantPage(items=items, next=items[-1].id if len(items) == limit else None)


@router.delete("/grants/{grant_id}")
async def revoke_grant(
    member: Member, parts: AuthParts, grant_id: str, request: Request, response: Response
) -> RevokedGrant:
    """Disconnect a client: its tokens are refused from its next request on."""
    grant = await asyncio.to_thread(parts.store.grants.get, grant_id)
    if grant.user_id != member.id and member.role != "admin":
        raise UnknownGrant
    receipt = await parts.people.revoke_grant(member, grant, address_of(request))
    response.status_code = receipt.status
    return RevokedGrant(id=grant.id, receipt=receipt)


def _time(seconds: int) -> str:
    return iso(datetime.fromtimestamp(seconds, UTC))


def _user(user: User) -> dict[str, object]:
    return {
        "id": user.id,
        "email": user.email,
        "name": user.name,
        "role": user.role,
        "active": user.active,
        "created_at": _time(user.created_at),
    }


def _grant(grant: Grant) -> GrantOut:
    return GrantOut(
        id=grant.id,
        user=grant.user_id,
        client_id=grant.client_id,
        client_name=grant.client_name,
        redirect_host=grant.redirect_host,
        audience=grant.audience,
        created_at=_time(grant.created_at),
        last_used_at=_time(grant.last_used_at),
    )
