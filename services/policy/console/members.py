"""The page /groups/{group}/members: who is in a group, and the page that asks before somebody is moved."""

from asyncio import to_thread
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from heapq import nsmallest
from operator import attrgetter
from typing import Annotated, NamedTuple
from urllib.parse import quote

from fastapi import APIRouter, Form, Request
from pydantic import BaseModel
from starlette.responses import Response

from libs.common.control.entries import DEFAULT_GROUP, User
from libs.common.control.tables import Tables
from libs.common.web import notices
from libs.common.web.session import Administrator
from services.policy.console import people
from services.policy.console.forms import show, unless_changed
from services.policy.dependencies import Known, Work, known_user
from services.policy.document.effects import Effect, effects
from services.policy.document.state import GroupState, State
from services.policy.domain import Group, Member
from services.policy.names import check_group
from services.policy.store import PolicyStore

router = APIRouter()

PAGE_SIZE = 50
ALL = 1_000_000


class MoveForm(BaseModel):
    """`version` is that of the member as the question showed it, `back` the group whose page to return to."""

    user: str
    version: str
    back: str = DEFAULT_GROUP


class Person(NamedTuple):
    """A user, and their group as it is kept."""

    user: User
    member: Member


class Sought(NamedTuple):
    """Of `total` members who fit those of one page and one more, and the first `others` who fit."""

    total: int
    members: list[Person]
    others: list[Person]


@router.get("/groups/{group}/members")
async def list_members(  # noqa: PLR0917  # what is looked for
    request: Request, _: Administrator, group: str, work: Work, known: Known, q: str = "", after: str = ""
) -> Response:
    """Members whose name or address fits `q`, from the address that follows `after`; and others who fit."""
    found = await to_thread(work.store.groups.get, group)
    sought = await to_thread(_search, work.store, group, dict(known.users), q, after)
    groups = {person.member.group for person in sought.others}
    return show(
        request,
        "members.html",
        group=found,
        q=q,
        after=after,
        total=sought.total,
        members=sought.members[:PAGE_SIZE],
        next=sought.members[PAGE_SIZE - 1].user.email if len(sought.members) > PAGE_SIZE else None,
        others=sought.others,
        names={id: known.groups[id].name for id in groups & known.groups.keys()},
    )


@router.get("/groups/{group}/members/move")
async def ask_to_move(  # noqa: PLR0917  # what the question is about
    request: Request,
    _: Administrator,
    group: str,
    user: str,
    work: Work,
    known: Known,
    back: str = "",
) -> Response:
    """Say what moving the user into the group would do, and ask."""
    account, after = known_user(known, user), await to_thread(work.store.groups.get, group)
    member = await to_thread(work.store.members.get, user)
    before = await to_thread(work.store.groups.get, member.group)
    differences = await to_thread(_effects, work.store, known, account, before, after)
    return show(
        request,
        "move.html",
        account=account,
        member=member,
        before=before,
        after=after,
        effects=differences,
        servers={server.slug: server.name for server in known.servers.values()},
        back=back or group,
    )


@router.post("/groups/{group}/members")
async def move_member(
    admin: Administrator, group: str, work: Work, known: Known, form: Annotated[MoveForm, Form()]
) -> Response:
    account, back = known_user(known, form.user), check_group(form.back)
    write = partial(work.store.members.put, form.user, group, unless_changed(form.version))
    done = await work.changes.make(admin, "member_moved", write)
    name = (await to_thread(work.store.groups.get, group)).name
    notice = notices.after(f"{account.email} is in {name} now.", done.receipt)
    return notices.redirect(f"/groups/{quote(back)}/members", notice, work.settings)


def _search(store: PolicyStore, group: str, users: Mapping[str, User], words: str, after: str) -> Sought:
    """In the order of addresses; no others where nobody is looked for."""
    fitting = people.matching(users.values(), words)
    inside = store.members.users_in(group, [user.id for user in fitting])
    rest = (user for user in fitting if user.id in inside and user.email > after)
    members = nsmallest(PAGE_SIZE + 1, rest, key=attrgetter("email"))
    outside = (user for user in fitting if user.id not in inside) if words.strip() else ()
    others = nsmallest(people.SHOWN, outside, key=attrgetter("email"))
    kept = store.members.some([user.id for user in (*members, *others)])
    return Sought(
        len(inside),
        [Person(user, kept[user.id]) for user in members],
        [Person(user, kept[user.id]) for user in others],
    )


def _effects(store: PolicyStore, known: Tables, user: User, before: Group, after: Group) -> list[Effect]:
    """What the user would gain and lose, server by server."""
    groups = {group.id: GroupState(group.name, group.servers) for group in (before, after)}
    present = State(groups, {user.id: before.id}, known.rules, {})
    wanted = replace(present, members={user.id: after.id})
    alone = replace(known, users={user.id: user})
    return list(effects(alone, store.servers.list(limit=ALL), present, wanted))
