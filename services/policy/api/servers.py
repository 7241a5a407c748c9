"""Servers, what they offer, and their processes."""

from asyncio import to_thread
from functools import partial

from fastapi import APIRouter, Request
from msgspec import to_builtins
from starlette.responses import Response

from libs.common.control.entries import User
from libs.common.web.session import Administrator
from services.policy.api.answers import Limit, answers, deleted, versioned
from services.policy.changes import Done
from services.policy.dependencies import IfMatch, Parts, Work
from services.policy.domain import Precondition, Server
from services.policy.features import Kind
from services.policy.names import check_slug
from services.policy.views import servers as views
from services.policy.views.base import Deleted
from services.policy.views.switches import SwitchBody

router = APIRouter()


@router.get("/servers")
async def list_servers(_: Administrator, work: Work, after: str = "", limit: Limit = 100) -> views.ServerPage:
    servers = await to_thread(work.store.servers.list, after, limit + 1)
    items = [views.ServerView.of(server, work.settings.public_url) for server in servers[:limit]]
    return views.ServerPage(items=items, next=items[-1].slug if len(servers) > limit else None)


@router.get("/servers/{slug}", response_model=views.ServerView)
async def get_server(_: Administrator, slug: str, work: Work) -> Response:
    server = await to_thread(work.store.servers.get, slug)
    return versioned(views.ServerView.of(server, work.settings.public_url))


@router.put("/servers/{slug}", **answers(views.ServerChanged))
async def put_server(
    admin: Administrator, slug: str, body: views.ServerBody, work: Work, precondition: IfMatch
) -> Response:
    definition = body.definition()
    write = partial(work.store.servers.put, check_slug(slug), definition, body.default_access, precondition)
    return server_changed(work, await work.changes.make(admin, "server_saved", write))


@router.delete("/servers/{slug}", **answers(Deleted))
async def delete_server(admin: Administrator, slug: str, work: Work, precondition: IfMatch) -> Response:
    write = partial(work.store.servers.delete, check_slug(slug), precondition)
    done = await work.changes.make(admin, "server_deleted", write)
    return deleted(done.receipt)


@router.put("/servers/{slug}/switch", **answers(views.ServerChanged))
async def switch_server(
    admin: Administrator, slug: str, body: SwitchBody, work: Work, precondition: IfMatch
) -> Response:
    write = partial(work.store.servers.switch, slug, body.wanted(), admin.id, precondition)
    event = "server_enabled" if body.enabled else "server_disabled"
    return server_changed(work, await work.changes.make(admin, event, write))


@router.post("/servers/{slug}/refresh", **answers(views.ServerChanged))
@router.post("/servers/{slug}/tools/refresh", deprecated=True, **answers(views.ServerChanged))
async def refresh_features(admin: Administrator, slug: str, work: Work) -> Response:
    """Ask the server for its tools, prompts and resources. 502 with one sentence when it does not tell."""
    offer = await work.upstreams.offer(await to_thread(work.store.servers.get, slug))
    write = partial(work.store.servers.set_features, slug, *offer)
    return server_changed(work, await work.changes.make(admin, "features_learned", write))


@router.put("/servers/{slug}/tools", **answers(views.ServerChanged))
async def put_tools(
    admin: Administrator, slug: str, body: views.ToolsBody, work: Work, precondition: IfMatch
) -> Response:
    """Name the tools of a server that does not tell them itself."""
    return await _named(admin, slug, {"tools": body.tools}, work, precondition)


@router.put("/servers/{slug}/prompts", **answers(views.ServerChanged))
async def put_prompts(
    admin: Administrator, slug: str, body: views.PromptsBody, work: Work, precondition: IfMatch
) -> Response:
    """Name the prompts of a server that does not tell them itself."""
    return await _named(admin, slug, {"prompts": body.prompts}, work, precondition)


@router.put("/servers/{slug}/resources", **answers(views.ServerChanged))
async def put_resources(
    admin: Administrator, slug: str, body: views.ResourcesBody, work: Work, precondition: IfMatch
) -> Response:
    """Name the resources of a server that does not tell them itself, or the beginnings of their URIs."""
    return await _named(admin, slug, {"resources": body.resources}, work, precondition)


async def _named(
    admin: User, slug: str, names: dict[Kind, list[str]], work: Parts, precondition: Precondition
) -> Response:
    write = partial(work.store.servers.name_features, slug, names, precondition)
    return server_changed(work, await work.changes.make(admin, "features_named", write))


@router.get("/servers/{slug}/processes")
async def list_processes(_: Administrator, request: Request, slug: str, work: Work) -> views.ProcessPage:
    """The processes of a stdio server and what they wrote last on standard error, asked from all gateways."""
    await to_thread(work.store.servers.get, slug)
    replicas = len(request.app.state.follower.tables.replicas)
    found = await work.upstreams.processes(slug, replicas)
    return views.ProcessPage(items=[views.ReplicaProcesses(**to_builtins(answer)) for answer in found])


def server_changed(work: Work, done: Done[Server]) -> Response:
    assert done.after
    view = views.ServerChanged.of(done.after, work.settings.public_url, receipt=done.receipt)
    return versioned(view, done.receipt.status)
