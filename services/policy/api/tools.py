"""Tools by their definitions: which are approved, and which wait for that."""

from asyncio import to_thread
from collections.abc import Mapping
from functools import partial

from fastapi import APIRouter
from starlette.responses import Response

from libs.common.control.entries import User
from libs.common.web.session import Administrator
from services.policy.api.answers import Limit, answers
from services.policy.api.servers import server_changed
from services.policy.dependencies import IfMatch, Parts, Work
from services.policy.domain import Precondition
from services.policy.views import tools as views
from services.policy.views.servers import ServerChanged

router = APIRouter()

TOOL = "/servers/{slug}/tools/{tool:path}"


@router.get("/quarantine")
async def list_waiting(
    _: Administrator, work: Work, after: str = "", limit: Limit = 100
) -> views.WaitingPage:
    """The tools of all servers that wait for an administrator. `after` is `<slug>/<tool>`."""
    slug, _slash, tool = after.partition("/")
    found = await to_thread(work.store.pins.waiting, (slug, tool), limit + 1)
    items = [views.WaitingTool.of(waiting) for waiting in found[:limit]]
    following = f"{items[-1].server}/{items[-1].tool}" if len(found) > limit else None
    return views.WaitingPage(items=items, next=following)


@router.get("/servers/{slug}/tools")
async def list_tools(
    _: Administrator, slug: str, work: Work, after: str = "", limit: Limit = 100
) -> views.ToolPage:
    """All tools that are known, in the order of their names, whether they can be used or not."""
    server = await to_thread(work.store.servers.get, slug)
    found = sorted((name, pin) for name, pin in server.tools.items() if name > after)
    items = [views.ToolView.of(name, pin) for name, pin in found[:limit]]
    return views.ToolPage(items=items, next=items[-1].name if len(found) > limit else None)


@router.post("/servers/{slug}/tools/approve", **answers(ServerChanged))
async def approve_tools(
    admin: Administrator, slug: str, body: views.ApprovalsBody, work: Work, precondition: IfMatch
) -> Response:
    """Approve all of these definitions or, where one is not what waits any more, none (409)."""
    return await _approve(admin, slug, body.tools, work, precondition)


@router.post(f"{TOOL}/approve", **answers(ServerChanged))
async def approve_tool(  # noqa: PLR0917  # two names in the path
    admin: Administrator, slug: str, tool: str, body: views.ApprovalBody, work: Work, precondition: IfMatch
) -> Response:
    """The tool may be used if it is as the digest says: the definition that waits, or the approved one, to
    which the server has returned. 409 where it is neither."""
    return await _approve(admin, slug, {tool: body.digest}, work, precondition)


@router.post(f"{TOOL}/reject", **answers(ServerChanged))
async def reject_tool(  # noqa: PLR0917  # two names in the path
    admin: Administrator, slug: str, tool: str, body: views.ApprovalBody, work: Work, precondition: IfMatch
) -> Response:
    """The tool stays held, and nobody is asked about this definition again. 409 if it is not what waits."""
    write = partial(work.store.pins.reject, slug, tool, body.digest, precondition)
    return server_changed(work, await work.changes.make(admin, "tool_rejected", write))


@router.get(TOOL)
async def get_tool(_: Administrator, slug: str, tool: str, work: Work) -> views.DefinedTool:
    """With its definitions, and what differs between them."""
    defined = await to_thread(work.store.pins.get, slug, tool)
    return await to_thread(views.DefinedTool.about, tool, defined)


@router.delete(TOOL, **answers(ServerChanged))
async def forget_tool(
    admin: Administrator, slug: str, tool: str, work: Work, precondition: IfMatch
) -> Response:
    """As if the tool had never been seen: when it appears again, it is new."""
    write = partial(work.store.pins.forget, slug, tool, precondition)
    return server_changed(work, await work.changes.make(admin, "tool_forgotten", write))


async def _approve(
    admin: User, slug: str, digests: Mapping[str, str], work: Parts, precondition: Precondition
) -> Response:
    write = partial(work.store.pins.approve, slug, digests, precondition)
    return server_changed(work, await work.changes.make(admin, "tools_approved", write))
