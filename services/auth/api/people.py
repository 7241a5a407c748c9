"""Users, and the links with which they set their passwords."""

import asyncio

from fastapi import APIRouter, Response
from pydantic import BaseModel, Field

from libs.common.control.entries import Role
from libs.common.control.owner import Receipt
from libs.common.web.session import Administrator
from services.auth.api.paging import After, Limit, following, time_of
from services.auth.domain import User
from services.auth.links import NewLink
from services.auth.parts import AuthParts

router = APIRouter()


class Invitation(BaseModel):
    email: str = Field(max_length=254)
    name: str = Field("", max_length=200)
    role: Role = "member"


class NewUser(Invitation):
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
    joined_at: str | None = Field(description="Null of somebody who is invited and has not signed in yet.")


class ChangedUser(UserOut):
    receipt: Receipt


class CreatedUser(ChangedUser):
    password: str | None = Field(None, description="The generated password. It is shown this once.")


class OfferedLink(BaseModel):
    user: UserOut
    url: str = Field(description="To hand to the person. It works once and is shown this once.")
    expires_at: str
    receipt: Receipt


class DeletedUser(BaseModel):
    id: str
    receipt: Receipt


class UserPage(BaseModel):
    items: list[UserOut]
    next: str | None = Field(description="Give it as `after` for the next page.")


@router.get("/users")
async def list_users(
    admin: Administrator, parts: AuthParts, after: After = "", limit: Limit = 100
) -> UserPage:
    users = await asyncio.to_thread(parts.store.users.page, after, limit)
    items = [UserOut(**_user(user)) for user in users]
    return UserPage(items=items, next=following(items, limit))


@router.post("/users")
async def add_user(admin: Administrator, parts: AuthParts, new: NewUser, response: Response) -> CreatedUser:
    """Make an account with a password. To let the person choose it, invite them."""
    user, password, receipt = await parts.people.add(admin, new.email, new.name, new.role, new.password)
    response.status_code = receipt.status
    response.headers["Cache-Control"] = "no-store"
    return CreatedUser(**_user(user), receipt=receipt, password=password)


@router.post("/invitations")
async def invite(admin: Administrator, parts: AuthParts, new: Invitation, response: Response) -> OfferedLink:
    """Make an account, and a link with which its owner chooses the password within seven days."""
    return _offered(await parts.links.invite(admin, new.email, new.name, new.role), response)


@router.post("/users/{user_id}/invitation")
async def invite_again(
    admin: Administrator, parts: AuthParts, user_id: str, response: Response
) -> OfferedLink:
    """Make another link for somebody who has not joined yet; the one before is void."""
    return _offered(await parts.links.renew(admin, user_id, "invitation"), response)


@router.post("/users/{user_id}/password-reset")
async def offer_password_reset(
    admin: Administrator, parts: AuthParts, user_id: str, response: Response
) -> OfferedLink:
    """Make a link with which somebody sets a new password within a day. Using it ends all their logins and
    disconnects all clients; the password they have stays good until then."""
    return _offered(await parts.links.renew(admin, user_id, "reset"), response)


@router.get("/users/{user_id}")
async def get_user(admin: Administrator, parts: AuthParts, user_id: str) -> UserOut:
    return UserOut(**_user(await asyncio.to_thread(parts.store.users.get, user_id)))


@router.patch("/users/{user_id}")
async def change_user(
    admin: Administrator, parts: AuthParts, user_id: str, change: UserChange, response: Response
) -> ChangedUser:
    """Deactivating somebody ends all their logins and disconnects all clients."""
    user, receipt = await parts.people.change(
        admin, user_id, name=change.name, role=change.role, active=change.active
    )
    response.status_code = receipt.status
    return ChangedUser(**_user(user), receipt=receipt)


@router.delete("/users/{user_id}")
async def delete_user(
    admin: Administrator, parts: AuthParts, user_id: str, response: Response
) -> DeletedUser:
    """End all logins of a user, disconnect all clients, and forget the account."""
    user, receipt = await parts.people.delete(admin, user_id)
    response.status_code = receipt.status
    return DeletedUser(id=user.id, receipt=receipt)


@router.post("/users/{user_id}/sign-out-everywhere")
async def sign_out_everywhere(
    admin: Administrator, parts: AuthParts, user_id: str, response: Response
) -> ChangedUser:
    """End all logins of a user and disconnect all clients."""
    user, receipt = await parts.people.end_all(admin, user_id)
    response.status_code = receipt.status
    return ChangedUser(**_user(user), receipt=receipt)


def _offered(link: NewLink, response: Response) -> OfferedLink:
    response.status_code = link.receipt.status
    response.headers["Cache-Control"] = "no-store"
    return OfferedLink(
        user=UserOut(**_user(link.user)),
        url=link.url,
        expires_at=time_of(link.expires_at),
        receipt=link.receipt,
    )


def _user(user: User) -> dict[str, object]:
    return {
        "id": user.id,
        "email": user.email,
        "name": user.name,
        "role": user.role,
        "active": user.active,
        "created_at": time_of(user.created_at),
        "joined_at": None if user.joined_at is None else time_of(user.joined_at),
    }
