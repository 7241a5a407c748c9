"""The pages /groups and /groups/{group}, and the form that says what a group may use of a server."""

from asyncio import to_thread
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.responses import Response

from libs.common.web import notices
from libs.common.web.session import Administrator
from services.policy.console.choices import Choices
from services.policy.console.forms import AccessForm, GroupForm, show, unless_changed
from services.policy.dependencies import Work
from services.policy.names import check_name

router = APIRouter(include_in_schema=False)

SERVERS_SHOWN = 1000


@router.get("/groups")
async def list_groups(request: Request, _: Administrator, work: Work) -> Response:
    return show(request, "groups.html", groups=await to_thread(work.store.groups.list))


@router.get("/groups/{group}")
async def show_group(request: Request, _: Administrator, group: str, work: Work) -> Response:
    found = await to_thread(work.store.groups.get, group)
    servers = await to_thread(work.store.servers.list, "", SERVERS_SHOWN)
    choices = [Choices.of(found, server) for server in servers]
    return show(request, "group.html", group=found, choices=choices)


@router.post("/groups/{group}")
async def rename_group(
    admin: Administrator, group: str, work: Work, form: Annotated[GroupForm, Form()]
) -> Response:
    name = check_name(form.name.strip())
    write = partial(work.store.groups.put, group, name, unless_changed(form.version))
    done = await work.changes.make(admin, "group_saved", write)
    return notices.redirect(f"/groups/{group}", notices.after("Renamed.", done.receipt), work.settings)


@router.post("/groups/{group}/servers/{slug}")
async def change_access(
    admin: Administrator, group: str, slug: str, work: Work, form: Annotated[AccessForm, Form()]
) -> Response:
    present = (await to_thread(work.store.groups.get, group)).servers.get(slug)
    access, precondition = form.access(present), unless_changed(form.version)
    write = partial(work.store.groups.set_access, group, slug, access, precondition)
    done = await work.changes.make(admin, "access_changed", write)
    path = f"/servers/{slug}" if form.back == "server" else f"/groups/{group}"
    notice = notices.after(f"What the group may use of {slug} is saved.", done.receipt)
    return notices.redirect(path, notice, work.settings)
