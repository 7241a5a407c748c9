"""The pages /servers and /servers/{slug}."""

import re
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
from services.policy.console import tools
from services.policy.console.choices import Choices
from services.policy.console.forms import (
    NamesForm,
    NewServerForm,
    ServerForm,
    problem,
    show,
    unless_changed,
)
from services.policy.dependencies import Parts, Work
from services.policy.domain import Precondition, Server
from services.policy.features import Features
from services.policy.names import check_slug
from services.policy.upstream import FeaturesUnknown
from services.policy.views.servers import mcp_url

router = APIRouter()

PAGE_SIZE = 100
# Names of variables that are more often secrets than settings.
_SECRET = re.compile(r"TOKEN|SECRET|PASSW|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|CREDENTIAL", re.IGNORECASE)


@router.get("/servers")
async def list_servers(request: Request, _: Administrator, work: Work, after: str = "") -> Response:
    return await _list(request, work, after=after)


@router.post("/servers")
async def add_server(
    request: Request, admin: Administrator, work: Work, form: Annotated[NewServerForm, Form()]
) -> Response:
    """Add the server and ask it once what it offers; that it does not tell does not stand in the way."""
    try:
        slug, definition, access = check_slug(form.slug.strip()), form.definition(), form.access()
        write = partial(work.store.servers.put, slug, definition, access, Precondition(absent=True))
        done = await work.changes.make(admin, "server_saved", write)
    except LockgateError as error:
        return await _list(request, work, entered=form, error=error)
    assert done.after
    notice = notices.after(f"{definition.name} is added.", done.receipt)
    try:
        notice = notice.and_then(await _learn(admin, done.after, work))
    except FeaturesUnknown as error:
        notice = notice.and_then(Notice(f"What it offers could not be read. {error.detail}", "warn"))
    return notices.redirect(f"/servers/{slug}", notice, work.settings)


@router.get("/servers/{slug}")
async def show_server(request: Request, _: Administrator, slug: str, work: Work) -> Response:
    return await _detail(request, slug, work)


@router.post("/servers/{slug}")
async def edit_server(
    request: Request, admin: Administrator, slug: str, work: Work, form: Annotated[ServerForm, Form()]
) -> Response:
    try:
        precondition = unless_changed(form.version)
        write = partial(work.store.servers.put, slug, form.definition(), precondition=precondition)
        done = await work.changes.make(admin, "server_saved", write)
    except LockgateError as error:
        return await _detail(request, slug, work, entered=form, error=error)
    return notices.redirect(f"/servers/{slug}", notices.after("Saved.", done.receipt), work.settings)


@router.post("/servers/{slug}/refresh")
async def refresh_features(admin: Administrator, slug: str, work: Work) -> Response:
    server = await to_thread(work.store.servers.get, slug)
    try:
        notice = await _learn(admin, server, work)
    except FeaturesUnknown as error:
        said = f"What it offers could not be read. {error.detail} You can name it by hand."
        notice = Notice(said, "bad")
    return notices.redirect(f"/servers/{slug}", notice, work.settings)


@router.post("/servers/{slug}/features")
async def name_features(
    admin: Administrator, slug: str, work: Work, form: Annotated[NamesForm, Form()]
) -> Response:
    write = partial(work.store.servers.name_features, slug, form.names())
    done = await work.changes.make(admin, "features_named", write)
    return notices.redirect(f"/servers/{slug}", notices.after("Saved.", done.receipt), work.settings)


@router.post("/servers/{slug}/delete")
async def delete_server(admin: Administrator, slug: str, work: Work) -> Response:
    write = partial(work.store.servers.delete, check_slug(slug))
    done = await work.changes.make(admin, "server_deleted", write)
    notice = notices.after(f"{slug} is deleted.", done.receipt)
    return notices.redirect("/servers", notice, work.settings)


async def _learn(admin: Administrator, server: Server, work: Parts) -> Notice:
    """Ask `server` what it offers and keep it. Raises `FeaturesUnknown`."""
    offer = await work.upstreams.offer(server)
    write = partial(work.store.servers.set_features, server.slug, *offer)
    done = await work.changes.make(admin, "features_learned", write)
    return notices.after(f"It has {_counted(offer.features)}.", done.receipt)


def _counted(features: Features) -> str:
    """How many tools there are, and how many of the rest if there are any."""
    counts = [(kind, len(offered)) for kind, offered in features if offered or kind == "tools"]
    said = [f"1 {kind[:-1]}" if count == 1 else f"{count} {kind}" for kind, count in counts]
    return said[0] if len(said) == 1 else f"{', '.join(said[:-1])} and {said[-1]}"


async def _list(
    request: Request,
    work: Parts,
    *,
    after: str = "",
    entered: NewServerForm | None = None,
    error: LockgateError | None = None,
) -> Response:
    servers = await to_thread(work.store.servers.list, after, PAGE_SIZE + 1)
    shown = servers[:PAGE_SIZE]
    public_url = work.settings.public_url
    return show(
        request,
        "servers.html",
        status=error.status if error else 200,
        notice=problem(error),
        servers=shown,
        urls={server.slug: mcp_url(public_url, server.slug) for server in shown},
        waiting={server.slug: tools.waiting(server) for server in shown},
        next=shown[-1].slug if len(servers) > PAGE_SIZE else None,
        organization=await to_thread(work.store.organization.get),
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
    server = await to_thread(work.store.servers.get, slug)
    url = mcp_url(work.settings.public_url, slug)
    tables = request.app.state.follower.tables
    stdio = server.definition.transport == "stdio"
    return show(
        request,
        "server.html",
        status=error.status if error else 200,
        notice=problem(error),
        server=server,
        url=url,
        waiting=tools.waiting(server),
        offered=_counted(server.features) if any(known for _, known in server.features) else "",
        doubtful=[name for name in server.definition.environment if _SECRET.search(name)],
        replicas=await work.upstreams.processes(slug, len(tables.replicas)) if stdio else None,
        users=tables.users,
        choices=[Choices.of(group, server) for group in await to_thread(work.store.groups.list)],
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
