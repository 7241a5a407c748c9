"""Members: users and their groups."""

from typing import Self

from pydantic import BaseModel

from libs.common.control.entries import User
from libs.common.control.owner import Receipt
from services.policy.domain import Member
from services.policy.views.base import Body, Switched


class MemberBody(Body):
    """The group to be in."""

    group: str


class MemberView(Switched):
    """A user, as far as policy goes. `active`: they may sign in at all, which is said in their account."""

    user: str
    email: str
    name: str
    active: bool
    group: str

    @classmethod
    def of(cls, member: Member, user: User, **more: object) -> Self:
        account = {"email": user.email, "name": user.name, "active": user.active}
        return cls.model_validate(member.record() | account | more)


class MemberChanged(MemberView):
    receipt: Receipt


class MemberPage(BaseModel):
    """`next` is the value of `?after=` for the following page; null on the last one."""

    items: list[MemberView]
    next: str | None
