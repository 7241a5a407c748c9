"""The pages /groups and /groups/{group}, and the form that says what a group may use of a server."""

from asyncio import to_thread
from dataclasses import replace
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.responses import Response

from libs.common.control.entries import DEFAULT_GROUP, Quota, Rule, User
from libs.common.control.tables import Tables
from libs.common.errors import LockgateError
from libs.common.web import notices
from libs.common.web.session import Administrator
from services.policy.api import decisions
from services.policy.console.choices import Choices
from services.policy.console.forms import (
    AccessForm,
    GroupForm,
    VersionForm,
    id_of,
    problem,
    show,
    unless_changed,
)
from services.policy.dependencies import Known, Parts, Work
from services.policy.domain import Precondition
from services.policy.names import check_group, check_name
from services.policy.rules import group_of
from services.policy.views.decisions import ProposedAccess, ReplayBody
from services.policy.views.groups import AccessBody

router = APIRouter()

PAGE_SIZE = 100
SERVERS_SHOWN = 1000


@router.get("/groups")
async def list_groups(
    request: Request, _: Administrator, work: Work, known: Known, after: str = ""
) -> Response:
    return await _list(request, work, known, after=after)


@router.post("/groups")
async def add_group(
    request: Request, admin: Administrator, work: Work, known: Known, form: Annotated[GroupForm, Form()]
) -> Response:
    try:
        name = check_name(form.name.strip())
        group = check_group(id_of(form.id, name))
        write = partial(work.store.groups.put, group, name, Precondition(absent=True))
        done = await work.changes.make(admin, "group_saved", write)
    except LockgateError as error:
        return await _list(request, work, known, entered=form, error=error)
    notice = notices.after(f"{name} is there. It may use nothing yet.", done.receipt)
    return notices.redirect(f"/groups/{group}", notice, work.settings)


@router.get("/groups/{group}")
async def show_group(request: Request, _: Administrator, group: str, work: Work, known: Known) -> Response:
    found = await to_thread(work.store.groups.get, group)
    servers = await to_thread(work.store.servers.list, "", SERVERS_SHOWN)
    entries: list[Rule | Quota] = [*known.rules.values(), *known.quotas.values()]
    return show(
        request,
        "group.html",
        group=found,
        choices=[Choices.of(found, server) for server in servers],
        members=(await to_thread(work.store.members.counts, len(known.users))).get(group, 0),
        naming=sum(group_of(entry) == group for entry in entries),
        default=await to_thread(work.store.groups.get, DEFAULT_GROUP),
    )


@router.post("/groups/{group}")
async def rename_group(
    admin: Administrator, group: str, work: Work, form: Annotated[GroupForm, Form()]
) -> Response:
    name = check_name(form.name.strip())
    await to_thread(work.store.groups.get, group)
    write = partial(work.store.groups.put, group, name, unless_changed(form.version))
    done = await work.changes.make(admin, "group_saved", write)
    return notices.redirect(f"/groups/{group}", notices.after("Renamed.", done.receipt), work.settings)


@router.post("/groups/{group}/delete")
async def delete_group(
    admin: Administrator, group: str, work: Work, form: Annotated[VersionForm, Form()]
) -> Response:
    name = (await to_thread(work.store.groups.get, group)).name
    write = partial(work.store.groups.delete, group, unless_changed(form.version))
    done = await work.changes.make(admin, "group_deleted", write)
    return notices.redirect("/groups", notices.after(f"{name} is deleted.", done.receipt), work.settings)


@router.post("/groups/{group}/servers/{slug}")
async def change_access(  # noqa: PLR0917  # what a form needs
    request: Request,
    admin: Administrator,
    group: str,
    slug: str,
    work: Work,
    form: Annotated[AccessForm, Form()],
) -> Response:
    if form.action == "try":
        return await _try_access(request, admin, group, slug, work, form)
    present = (await to_thread(work.store.groups.get, group)).servers.get(slug)
    access, precondition = form.access(present), unless_changed(form.version)
    write = partial(work.store.groups.set_access, group, slug, access, precondition)
    done = await work.changes.make(admin, "access_changed", write)
    path = f"/servers/{slug}" if form.back == "server" else f"/groups/{group}"
    notice = notices.after(f"What the group may use of {slug} is saved.", done.receipt)
    return notices.redirect(path, notice, work.settings)


async def _try_access(  # noqa: PLR0917  # what a form needs
    request: Request, admin: User, group: str, slug: str, work: Parts, form: AccessForm
) -> Response:
    """The form as it was sent, and which recorded calls it would decide otherwise."""
    found = await to_thread(work.store.groups.get, group)
    server = await to_thread(work.store.servers.get, slug)
    access = form.access(found.servers.get(slug))
    unless_changed(form.version)
    others = {key: value for key, value in found.servers.items() if key != slug}
    servers = others | ({slug: access} if access else {})
    proposed = replace(found, servers=servers, version=int(form.version))
    outcome, error = None, None
    try:
        body = AccessBody.model_validate(access, from_attributes=True) if access else None
        proposal = ProposedAccess(group=group, server=slug, access=body)
        asked = ReplayBody(days=float(form.days), access=[proposal])
        outcome = await decisions.replay(admin, work, asked)
    except LockgateError as caught:
        error = caught
    return show(
        request,
        "access.html",
        status=error.status if error else 200,
        notice=problem(error, "It could not be tried"),
        choice=Choices.of(proposed, server),
        back=form.back,
        days=form.days,
        outcome=outcome,
    )


async def _list(
    request: Request,
    work: Parts,
    known: Tables,
    *,
    after: str = "",
    entered: GroupForm | None = None,
    error: LockgateError | None = None,
) -> Response:
    groups = await to_thread(work.store.groups.list, after, PAGE_SIZE + 1)
    return show(
        request,
        "groups.html",
        status=error.status if error else 200,
        notice=problem(error),
        groups=groups[:PAGE_SIZE],
        next=groups[PAGE_SIZE - 1].id if len(groups) > PAGE_SIZE else None,
        members=await to_thread(work.store.members.counts, len(known.users)),
        fields=entered or GroupForm(),
        adding=entered is not None,
    )
