"""Members: which users are in which group. Which users there are, auth says in the control log."""

from asyncio import to_thread
from functools import partial

from fastapi import APIRouter
from starlette.responses import Response

from libs.common.web.session import Administrator
from services.policy.api.answers import Limit, answers, versioned
from services.policy.dependencies import IfMatch, Known, Work, known_user
from services.policy.views import members as views

router = APIRouter()


@router.get("/groups/{group}/members")
async def list_members(
    _: Administrator, group: str, work: Work, known: Known, after: str = "", limit: Limit = 100
) -> views.MemberPage:
    """In the order of the users' ids."""
    users = dict(known.users)
    found = await to_thread(work.store.members.of_group, group, users, after, limit + 1)
    items = [views.MemberView.of(member, users[member.user]) for member in found[:limit]]
    return views.MemberPage(items=items, next=items[-1].user if len(found) > limit else None)


@router.get("/members/{user}", response_model=views.MemberView)
async def get_member(_: Administrator, user: str, work: Work, known: Known) -> Response:
    account = known_user(known, user)
    return versioned(views.MemberView.of(await to_thread(work.store.members.get, user), account))


@router.put("/members/{user}", **answers(views.MemberChanged))
async def put_member(  # noqa: PLR0917  # what a change needs
    admin: Administrator,
    user: str,
    body: views.MemberBody,
    work: Work,
    known: Known,
    precondition: IfMatch,
) -> Response:
    """Move the user into the group. What they have open and may not use there ends."""
    account = known_user(known, user)
    write = partial(work.store.members.put, user, body.group, precondition)
    done = await work.changes.make(admin, "member_moved", write)
    assert done.after
    view = views.MemberChanged.of(done.after, account, receipt=done.receipt)
    return versioned(view, done.receipt.status)
