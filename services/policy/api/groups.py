"""Groups and what they may use."""

from asyncio import to_thread
from functools import partial

from fastapi import APIRouter
from starlette.responses import Response

from libs.common.web.session import Administrator
from services.policy.api.answers import Limit, answers, deleted, versioned
from services.policy.changes import Done
from services.policy.dependencies import IfMatch, Work
from services.policy.domain import Group
from services.policy.names import check_group, check_name
from services.policy.views import groups as views
from services.policy.views.base import Deleted

router = APIRouter()


@router.get("/groups")
async def list_groups(_: Administrator, work: Work, after: str = "", limit: Limit = 100) -> views.GroupPage:
    groups = await to_thread(work.store.groups.list, after, limit + 1)
    items = [views.GroupView.of(group) for group in groups[:limit]]
    return views.GroupPage(items=items, next=items[-1].id if len(groups) > limit else None)


@router.get("/groups/{group}", response_model=views.GroupView)
async def get_group(_: Administrator, group: str, work: Work) -> Response:
    return versioned(views.GroupView.of(await to_thread(work.store.groups.get, group)))


@router.put("/groups/{group}", **answers(views.GroupChanged))
async def put_group(
    admin: Administrator, group: str, body: views.GroupBody, work: Work, precondition: IfMatch
) -> Response:
    """Create the group, which may use nothing then, or rename it."""
    write = partial(work.store.groups.put, check_group(group), check_name(body.name), precondition)
    return _group_changed(await work.changes.make(admin, "group_saved", write))


@router.delete("/groups/{group}", **answers(Deleted))
async def delete_group(admin: Administrator, group: str, work: Work, precondition: IfMatch) -> Response:
    """Its members are in the default group then, which itself cannot be deleted."""
    write = partial(work.store.groups.delete, check_group(group), precondition)
    return deleted((await work.changes.make(admin, "group_deleted", write)).receipt)


@router.put("/groups/{group}/servers/{slug}", **answers(views.GroupChanged))
async def put_access(  # noqa: PLR0917  # two names in the path
    admin: Administrator, group: str, slug: str, body: views.AccessBody, work: Work, precondition: IfMatch
) -> Response:
    write = partial(work.store.groups.set_access, group, slug, body.access(), precondition)
    return _group_changed(await work.changes.make(admin, "access_changed", write))


@router.delete("/groups/{group}/servers/{slug}", **answers(views.GroupChanged))
async def delete_access(
    admin: Administrator, group: str, slug: str, work: Work, precondition: IfMatch
) -> Response:
    """The group may not use the server at all."""
    write = partial(work.store.groups.set_access, group, slug, None, precondition)
    return _group_changed(await work.changes.make(admin, "access_changed", write))


def _group_changed(done: Done[Group]) -> Response:
    assert done.after
    return versioned(views.GroupChanged.of(done.after, receipt=done.receipt), done.receipt.status)
