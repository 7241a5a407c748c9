"""The pages /servers/{slug}/tools and /servers/{slug}/tool?name=…: definitions, approved and waiting."""

from asyncio import to_thread
from functools import partial
from typing import Annotated, Literal
from urllib.parse import quote

from fastapi import APIRouter, Form, Request
from pydantic import BaseModel
from starlette.responses import Response

from libs.common.errors import BadRequest, LockgateError
from libs.common.web import notices
from libs.common.web.session import Administrator
from services.policy.console.forms import problem, show
from services.policy.dependencies import Parts, Work
from services.policy.domain import Server
from services.policy.pins import Pin
from services.policy.views.tools import DefinedTool, ToolView

router = APIRouter()

SHOWN = 500


class DecisionForm(BaseModel):
    """What is to become of a tool; `digest` is that of the definition that was looked at."""

    tool: str
    digest: str = ""
    decision: Literal["approve", "reject", "forget"]


class ApprovalsForm(BaseModel):
    """Each tick is a digest, a space and the tool's name."""

    ticks: list[str] = []

    def digests(self) -> dict[str, str]:
        """By tool. Raises `BadRequest`."""
        if not self.ticks:
            raise BadRequest("tick the tools that may be used as they are now")
        pairs = (tick.partition(" ") for tick in self.ticks)
        return {tool: digest for digest, _, tool in pairs}


@router.get("/servers/{slug}/tools")
async def list_tools(request: Request, _: Administrator, slug: str, work: Work, after: str = "") -> Response:
    return await _list(request, slug, work, after=after)


@router.post("/servers/{slug}/tools")
async def approve_tools(
    request: Request, admin: Administrator, slug: str, work: Work, form: Annotated[ApprovalsForm, Form()]
) -> Response:
    try:
        digests = form.digests()
        write = partial(work.store.pins.approve, slug, digests)
        done = await work.changes.make(admin, "tools_approved", write)
    except LockgateError as error:
        return await _list(request, slug, work, error=error)
    said = "1 tool is approved." if len(digests) == 1 else f"{len(digests)} tools are approved."
    return notices.redirect(f"/servers/{slug}/tools", notices.after(said, done.receipt), work.settings)


@router.get("/servers/{slug}/tool")
async def show_tool(request: Request, _: Administrator, slug: str, name: str, work: Work) -> Response:
    return await _detail(request, slug, name, work)


@router.post("/servers/{slug}/tool")
async def decide_on_tool(
    request: Request, admin: Administrator, slug: str, work: Work, form: Annotated[DecisionForm, Form()]
) -> Response:
    pins, tool = work.store.pins, form.tool
    event, said, write = {
        "approve": (
            "tools_approved",
            f"{tool} is approved.",
            partial(pins.approve, slug, {tool: form.digest}),
        ),
        "reject": ("tool_rejected", f"{tool} stays held.", partial(pins.reject, slug, tool, form.digest)),
        "forget": ("tool_forgotten", f"{tool} is forgotten.", partial(pins.forget, slug, tool)),
    }[form.decision]
    try:
        done = await work.changes.make(admin, event, write)
    except LockgateError as error:
        return await _detail(request, slug, tool, work, error=error)
    path = f"/servers/{slug}/tools"
    if form.decision != "forget":
        path = f"/servers/{slug}/tool?name={quote(tool, safe='')}"
    return notices.redirect(path, notices.after(said, done.receipt), work.settings)


async def _list(
    request: Request, slug: str, work: Parts, *, after: str = "", error: LockgateError | None = None
) -> Response:
    server = await to_thread(work.store.servers.get, slug)
    views = [ToolView.of(name, pin) for name, pin in sorted(server.tools.items())]
    rest = [view for view in views if view.state not in {"changed", "new"} and view.name > after]
    return show(
        request,
        "tools.html",
        status=error.status if error else 200,
        notice=problem(error, "Nothing was approved"),
        server=server,
        descriptions={tool.name: tool.description for tool in server.features.tools},
        waiting=[view for view in views if view.state in {"changed", "new"} and not view.rejected],
        rejected=[view for view in views if view.rejected],
        tools=rest[:SHOWN],
        next=rest[SHOWN - 1].name if len(rest) > SHOWN else None,
        total=len(views),
    )


async def _detail(
    request: Request, slug: str, name: str, work: Parts, *, error: LockgateError | None = None
) -> Response:
    server = await to_thread(work.store.servers.get, slug)
    defined = await to_thread(work.store.pins.get, slug, name)
    return show(
        request,
        "tool.html",
        status=error.status if error else 200,
        notice=problem(error, "Nothing was decided"),
        server=server,
        tool=await to_thread(DefinedTool.about, name, defined),
        off=server.tools_off.get(name),
    )


def waiting(server: Server) -> int:
    """How many tools of `server` wait for somebody to decide."""
    return sum(_waits(pin) for pin in server.pins.values())


def _waits(pin: Pin) -> bool:
    return bool(pin.held) and not pin.rejected
