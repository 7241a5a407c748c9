"""The pages /servers and /servers/{slug}."""

from asyncio import to_thread
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.responses import Response

from libs.common.errors import LockgateError
from libs.common.web import notices
from libs.common.web.notices import Notice
from libs.common.web.session import Administrator
from services.policy import clients
from services.policy.console.forms import (
    NewServerForm,
    ServerForm,
    SwitchForm,
    ToolNamesForm,
    show,
    unless_changed,
)
from services.policy.dependencies import Parts, Work
from services.policy.domain import Precondition, Server, Tool, check_slug
from services.policy.upstream import ToolsUnknown
from services.policy.views import mcp_url

router = APIRouter(include_in_schema=False)

PAGE_SIZE = 100


@router.get("/servers")
async def list_servers(request: Request, _: Administrator, work: Work, after: str = "") -> Response:
    return await _list(request, work, after=after)


@router.post("/servers")
async def add_server(
    request: Request, admin: Administrator, work: Work, form: Annotated[NewServerForm, Form()]
) -> Response:
    """Add the server and ask it once for its tools; that it does not tell them does not stand in the way."""
    try:
        slug, definition, access = check_slug(form.slug.strip()), form.definition(), form.access()
        write = partial(work.store.put_server, slug, definition, access, Precondition(absent=True))
        done = await work.changes.make(admin, "server_saved", write)
    except LockgateError as error:
        return await _list(request, work, entered=form, error=error)
    assert done.after
    notice = notices.after(f"{definition.name} is added.", done.receipt)
    try:
        notice = notice.and_then(await _learn_tools(admin, done.after, work))
    except ToolsUnknown as error:
        notice = notice.and_then(Notice(f"Its tools could not be read. {error.detail}", "warn"))
    return notices.redirect(f"/servers/{slug}", notice, work.settings)


@router.post("/servers/_organization")  # no slug begins with an underscore
async def switch_organization(
    admin: Administrator, work: Work, form: Annotated[SwitchForm, Form()]
) -> Response:
    event = "organization_enabled" if form.enabled else "organization_disabled"
    write = partial(work.store.switch_organization, form.enabled, form.checked_reason())
    done = await work.changes.make(admin, event, write)
    said = "Everything is switched on again." if form.enabled else "Everything is switched off."
    return notices.redirect("/servers", notices.after(said, done.receipt), work.settings)


@router.get("/servers/{slug}")
async def show_server(request: Request, _: Administrator, slug: str, work: Work) -> Response:
    return await _detail(request, slug, work)


@router.post("/servers/{slug}")
async def edit_server(
    request: Request, admin: Administrator, slug: str, work: Work, form: Annotated[ServerForm, Form()]
) -> Response:
    try:
        precondition = unless_changed(form.version)
        write = partial(work.store.put_server, slug, form.definition(), precondition=precondition)
        done = await work.changes.make(admin, "server_saved", write)
    except LockgateError as error:
        return await _detail(request, slug, work, entered=form, error=error)
    return notices.redirect(f"/servers/{slug}", notices.after("Saved.", done.receipt), work.settings)


@router.post("/servers/{slug}/switch")
async def switch_server(
    admin: Administrator, slug: str, work: Work, form: Annotated[SwitchForm, Form()]
) -> Response:
    event = "server_enabled" if form.enabled else "server_disabled"
    write = partial(work.store.switch_server, slug, form.enabled, form.checked_reason())
    done = await work.changes.make(admin, event, write)
    assert done.after
    said = f"{done.after.definition.name} is switched {'on' if form.enabled else 'off'}."
    return notices.redirect(f"/servers/{slug}", notices.after(said, done.receipt), work.settings)


@router.post("/servers/{slug}/tools/refresh")
async def refresh_tools(admin: Administrator, slug: str, work: Work) -> Response:
    server = await to_thread(work.store.server, slug)
    try:
        notice = await _learn_tools(admin, server, work)
    except ToolsUnknown as error:
        notice = Notice(f"Its tools could not be read. {error.detail} You can name them by hand.", "bad")
    return notices.redirect(f"/servers/{slug}", notice, work.settings)


@router.post("/servers/{slug}/tools")
async def name_tools(
    admin: Administrator, slug: str, work: Work, form: Annotated[ToolNamesForm, Form()]
) -> Response:
    known = {tool.name: tool for tool in (await to_thread(work.store.server, slug)).tools}
    tools = [known.get(name, Tool(name)) for name in form.tools()]
    done = await work.changes.make(admin, "tools_named", partial(work.store.set_tools, slug, tools))
    return notices.redirect(f"/servers/{slug}", notices.after("Saved.", done.receipt), work.settings)


@router.post("/servers/{slug}/delete")
async def delete_server(admin: Administrator, slug: str, work: Work) -> Response:
    write = partial(work.store.delete_server, check_slug(slug))
    done = await work.changes.make(admin, "server_deleted", write)
    notice = notices.after(f"{slug} is deleted.", done.receipt)
    return notices.redirect("/servers", notice, work.settings)


async def _learn_tools(admin: Administrator, server: Server, work: Parts) -> Notice:
    """Ask `server` for its tools and keep them. Raises `ToolsUnknown`."""
    tools = await work.upstreams.tools(server)
    write = partial(work.store.set_tools, server.slug, tools)
    done = await work.changes.make(admin, "tools_learned", write)
    count = "1 tool" if len(tools) == 1 else f"{len(tools)} tools"
    return notices.after(f"It has {count}.", done.receipt)


async def _list(
    request: Request,
    work: Parts,
    *,
    after: str = "",
    entered: NewServerForm | None = None,
    error: LockgateError | None = None,
) -> Response:
    servers = await to_thread(work.store.servers, after, PAGE_SIZE + 1)
    shown = servers[:PAGE_SIZE]
    public_url = work.settings.public_url
    return show(
        request,
        "servers.html",
        status=error.status if error else 200,
        notice=_problem(error),
        servers=shown,
        urls={server.slug: mcp_url(public_url, server.slug) for server in shown},
        next=shown[-1].slug if len(servers) > PAGE_SIZE else None,
        organization=await to_thread(work.store.organization),
        fields=entered or NewServerForm(),
        adding=entered is not None,
        origin=public_url,
    )


async def _detail(
    request: Request,
    slug: str,
    work: Parts,
    *,
    entered: ServerForm | None = None,
    error: LockgateError | None = None,
) -> Response:
    server = await to_thread(work.store.server, slug)
    url = mcp_url(work.settings.public_url, slug)
    return show(
        request,
        "server.html",
        status=error.status if error else 200,
        notice=_problem(error),
        server=server,
        url=url,
        groups=await to_thread(work.store.groups),
        snippets=clients.snippets(slug, url),
        fields=entered or ServerForm.of(server),
        lacks_credential=_lacks_credential(request, server),
    )


def _lacks_credential(request: Request, server: Server) -> bool:
    """Whether it needs a credential and the control log knows of none, of anybody, for its present URL."""
    credentials = request.app.state.follower.tables.credentials.values()
    entry = server.entry()
    return server.definition.auth == "api_key" and not any(
        credential.slug == server.slug and credential.is_for(entry) for credential in credentials
    )


def _problem(error: LockgateError | None) -> Notice | None:
    if error is None:
        return None
    return Notice(f"Not saved: {error.title}. {error.detail}".rstrip(), "bad")
