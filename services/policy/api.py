"""JSON under `/api/policy`, for administrators. Every change answers with its receipt: 200 when it holds on
every replica, 202 while something is pending."""

from asyncio import to_thread
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from msgspec import to_builtins
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from libs.common.control.entries import User
from libs.common.web.session import Administrator
from services.policy import views
from services.policy.changes import Done
from services.policy.dependencies import IfMatch, Parts, Work
from services.policy.domain import Group, Organization, Precondition, Server
from services.policy.features import Kind
from services.policy.names import check_name, check_slug

router = APIRouter(prefix="/api/policy", tags=["policy"])

Limit = Annotated[int, Query(ge=1, le=500)]


def _answers(model: type[BaseModel]) -> dict[str, Any]:
    """What OpenAPI says about a change that answers with `model`."""
    return {"response_model": model, "responses": {202: {"model": model}}}


def _json(view: views.Versioned, status: int = 200) -> Response:
    return JSONResponse(view.model_dump(mode="json"), status, {"ETag": f'"{view.version}"'})


def _server_changed(work: Work, done: Done[Server]) -> Response:
    assert done.after
    view = views.ServerChanged.of(done.after, work.settings.public_url, receipt=done.receipt)
    return _json(view, done.receipt.status)


def _group_changed(done: Done[Group]) -> Response:
    assert done.after
    return _json(views.GroupChanged.of(done.after, receipt=done.receipt), done.receipt.status)


def _organization_changed(done: Done[Organization]) -> Response:
    assert done.after
    return _json(views.OrganizationChanged.of(done.after, receipt=done.receipt), done.receipt.status)


# -- servers ----------------------------------------------------------------------------------------


@router.get("/servers")
async def list_servers(_: Administrator, work: Work, after: str = "", limit: Limit = 100) -> views.ServerPage:
    servers = await to_thread(work.store.servers, after, limit + 1)
    items = [views.ServerView.of(server, work.settings.public_url) for server in servers[:limit]]
    return views.ServerPage(items=items, next=items[-1].slug if len(servers) > limit else None)


@router.get("/servers/{slug}", response_model=views.ServerView)
async def get_server(_: Administrator, slug: str, work: Work) -> Response:
    server = await to_thread(work.store.server, slug)
    return _json(views.ServerView.of(server, work.settings.public_url))


@router.put("/servers/{slug}", **_answers(views.ServerChanged))
async def put_server(
    admin: Administrator, slug: str, body: views.ServerBody, work: Work, precondition: IfMatch
) -> Response:
    definition = body.definition()
    write = partial(work.store.put_server, check_slug(slug), definition, body.default_access, precondition)
    return _server_changed(work, await work.changes.make(admin, "server_saved", write))


@router.delete("/servers/{slug}", **_answers(views.Deleted))
async def delete_server(admin: Administrator, slug: str, work: Work, precondition: IfMatch) -> Response:
    write = partial(work.store.delete_server, check_slug(slug), precondition)
    done = await work.changes.make(admin, "server_deleted", write)
    return JSONResponse(views.Deleted(receipt=done.receipt).model_dump(mode="json"), done.receipt.status)


@router.put("/servers/{slug}/switch", **_answers(views.ServerChanged))
async def switch_server(
    admin: Administrator, slug: str, body: views.SwitchBody, work: Work, precondition: IfMatch
) -> Response:
    write = partial(work.store.switch_server, slug, body.enabled, body.checked_reason(), precondition)
    event = "server_enabled" if body.enabled else "server_disabled"
    return _server_changed(work, await work.changes.make(admin, event, write))


@router.post("/servers/{slug}/refresh", **_answers(views.ServerChanged))
@router.post("/servers/{slug}/tools/refresh", deprecated=True, **_answers(views.ServerChanged))
async def refresh_features(admin: Administrator, slug: str, work: Work) -> Response:
    """Ask the server for its tools, prompts and resources. 502 with one sentence when it does not tell."""
    features = await work.upstreams.features(await to_thread(work.store.server, slug))
    write = partial(work.store.set_features, slug, features)
    return _server_changed(work, await work.changes.make(admin, "features_learned", write))


@router.put("/servers/{slug}/tools", **_answers(views.ServerChanged))
async def put_tools(
    admin: Administrator, slug: str, body: views.ToolsBody, work: Work, precondition: IfMatch
) -> Response:
    """Name the tools of a server that does not tell them itself."""
    return await _named(admin, slug, {"tools": body.tools}, work, precondition)


@router.put("/servers/{slug}/prompts", **_answers(views.ServerChanged))
async def put_prompts(
    admin: Administrator, slug: str, body: views.PromptsBody, work: Work, precondition: IfMatch
) -> Response:
    """Name the prompts of a server that does not tell them itself."""
    return await _named(admin, slug, {"prompts": body.prompts}, work, precondition)


@router.put("/servers/{slug}/resources", **_answers(views.ServerChanged))
async def put_resources(
    admin: Administrator, slug: str, body: views.ResourcesBody, work: Work, precondition: IfMatch
) -> Response:
    """Name the resources of a server that does not tell them itself, or the beginnings of their URIs."""
    return await _named(admin, slug, {"resources": body.resources}, work, precondition)


async def _named(
    admin: User, slug: str, names: dict[Kind, list[str]], work: Parts, precondition: Precondition
) -> Response:
    write = partial(work.store.name_features, slug, names, precondition)
    return _server_changed(work, await work.changes.make(admin, "features_named", write))


@router.get("/servers/{slug}/processes")
async def list_processes(_: Administrator, request: Request, slug: str, work: Work) -> views.ProcessPage:
    """The processes of a stdio server and what they wrote last on standard error, asked from all gateways."""
    await to_thread(work.store.server, slug)
    replicas = len(request.app.state.follower.tables.replicas)
    found = await work.upstreams.processes(slug, replicas)
    return views.ProcessPage(items=[views.ReplicaProcesses(**to_builtins(answer)) for answer in found])


# -- the organization -------------------------------------------------------------------------------


@router.get("/organization", response_model=views.OrganizationView)
async def get_organization(_: Administrator, work: Work) -> Response:
    return _json(views.OrganizationView.of(await to_thread(work.store.organization)))


@router.put("/organization/switch", **_answers(views.OrganizationChanged))
async def switch_organization(
    admin: Administrator, body: views.SwitchBody, work: Work, precondition: IfMatch
) -> Response:
    write = partial(work.store.switch_organization, body.enabled, body.checked_reason(), precondition)
    event = "organization_enabled" if body.enabled else "organization_disabled"
    return _organization_changed(await work.changes.make(admin, event, write))


# -- groups -----------------------------------------------------------------------------------------


@router.get("/groups")
async def list_groups(_: Administrator, work: Work, after: str = "", limit: Limit = 100) -> views.GroupPage:
    groups = await to_thread(work.store.groups, after, limit + 1)
    items = [views.GroupView.of(group) for group in groups[:limit]]
    return views.GroupPage(items=items, next=items[-1].id if len(groups) > limit else None)


@router.get("/groups/{group}", response_model=views.GroupView)
async def get_group(_: Administrator, group: str, work: Work) -> Response:
    return _json(views.GroupView.of(await to_thread(work.store.group, group)))


@router.put("/groups/{group}", **_answers(views.GroupChanged))
async def rename_group(
    admin: Administrator, group: str, body: views.GroupBody, work: Work, precondition: IfMatch
) -> Response:
    write = partial(work.store.rename_group, group, check_name(body.name), precondition)
    return _group_changed(await work.changes.make(admin, "group_renamed", write))


@router.put("/groups/{group}/servers/{slug}", **_answers(views.GroupChanged))
async def put_access(  # noqa: PLR0917  # two names in the path
    admin: Administrator, group: str, slug: str, body: views.AccessBody, work: Work, precondition: IfMatch
) -> Response:
    write = partial(work.store.set_access, group, slug, body.access(), precondition)
    return _group_changed(await work.changes.make(admin, "access_changed", write))


@router.delete("/groups/{group}/servers/{slug}", **_answers(views.GroupChanged))
async def delete_access(
    admin: Administrator, group: str, slug: str, work: Work, precondition: IfMatch
) -> Response:
    """The group may not use the server at all."""
    write = partial(work.store.set_access, group, slug, None, precondition)
    return _group_changed(await work.changes.make(admin, "access_changed", write))
