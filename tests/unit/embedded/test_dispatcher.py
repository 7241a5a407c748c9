"""Every public path belongs to exactly one service, and the dispatcher knows to which."""

import re
from typing import Any

import pytest
from fastapi.routing import iter_route_contexts
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from services.embedded.catalog import NAMES, Name, create_app
from services.embedded.dispatcher import ROUTES, Dispatcher, owner_of
from services.embedded.settings import Place, derive
from services.gateway.app import Gateway

HEALTH = {"/healthz", "/readyz"}


def paths_of(app: Any) -> set[str]:
    """The paths of an app's route table, parameters filled in."""
    if isinstance(app, Gateway):
        return {"/mcp/demo", *paths_of(app._rest)}
    templates = {context.path or "" for context in iter_route_contexts(app.routes)}
    return {re.sub(r"{[^}]+}", "demo", template) for template in templates} - HEALTH


@pytest.fixture
def apps(place: Place) -> dict[Name, Any]:
    settings = derive(place)
    return {name: create_app(name, settings[name]) for name in NAMES}


def test_each_route_of_each_service_is_sent_to_that_service(apps: dict[Name, Any]) -> None:
    sent = {(name, path): owner_of(path) for name, app in apps.items() for path in paths_of(app)}
    assert {key: owner for key, owner in sent.items() if key[0] != owner} == {}
    assert {name for name, _ in sent} == set(NAMES)


def test_no_two_services_serve_the_same_path(apps: dict[Name, Any]) -> None:
    paths = [path for app in apps.values() for path in paths_of(app)]
    assert sorted(paths) == sorted(set(paths))


def test_every_entry_of_the_table_is_served_by_its_owner(apps: dict[Name, Any]) -> None:
    unused = {
        prefix
        for prefix, owner in ROUTES.items()
        if not any(path == prefix or path.startswith(f"{prefix}/") for path in paths_of(apps[owner]))
    }
    assert unused - {"/"} == set()


@pytest.mark.parametrize(
    ("path", "owner"),
    [
        ("/", "activity"),
        ("/nothing/here", "activity"),
        ("/mcpx", "activity"),
        ("//mcp/demo", "activity"),
        ("/mcp", "gateway"),
        ("/mcp/demo/sse", "gateway"),
        ("/.well-known/oauth-protected-resource", "gateway"),
        ("/.well-known/oauth-protected-resource/mcp/demo", "gateway"),
        ("/.well-known/oauth-protected-resourceful", "auth"),
        ("/.well-known/oauth-authorization-server", "auth"),
        ("/.well-known/openid-configuration/mcp/demo", "auth"),
        ("/login", "auth"),
        ("/loginx", "activity"),
        ("/servers/", "policy"),
        ("/servers/demo/edit", "policy"),
        ("/api/policy/servers/demo", "policy"),
        ("/api/policyx", "activity"),
        ("/api/credentials", "credentials"),
    ],
)
def test_prefixes_count_in_whole_segments(path: str, owner: str) -> None:
    assert owner_of(path) == owner


def named(name: str, ready: int = 200) -> Starlette:
    """An app that answers its own name everywhere, well or not."""

    async def answer(_: object) -> PlainTextResponse:
        return PlainTextResponse(name)

    async def readyz(_: object) -> PlainTextResponse:
        return PlainTextResponse(f'{{"from": "{name}"}}', ready)

    routes = [Route("/healthz", readyz), Route("/readyz", readyz), Route("/{path:path}", answer)]
    return Starlette(routes=routes)


def test_requests_reach_the_app_of_the_owner_with_their_path_unchanged() -> None:
    client = TestClient(Dispatcher({name: named(name) for name in NAMES}))
    assert client.get("/mcp/demo").text == "gateway"
    assert client.get("/oauth/authorize?x=1").text == "auth"
    assert client.get("/").text == "activity"


def test_ready_when_every_service_is() -> None:
    client = TestClient(Dispatcher({name: named(name) for name in NAMES}))
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["status"]) == (200, "ready")
    assert answer.json()["services"]["policy"] == {"from": "policy"}


def test_not_ready_when_one_service_is_not() -> None:
    client = TestClient(Dispatcher({"auth": named("auth"), "gateway": named("gateway", ready=503)}))
    assert client.get("/readyz").status_code == 503
    assert client.get("/readyz").json()["services"]["gateway"] == {"from": "gateway"}


def test_not_healthy_when_one_service_raises() -> None:
    async def broken(*_: object) -> None:
        raise ZeroDivisionError

    answer = TestClient(Dispatcher({"auth": named("auth"), "gateway": broken})).get("/healthz")
    assert answer.status_code == 503
    assert answer.json()["services"]["gateway"] == {"status": "failed: ZeroDivisionError"}
