"""What the service finds and makes when it starts."""

import pytest

from libs.common.control.entries import Off, Org, Server
from libs.common.sql import open_database
from services.policy.app import MIGRATIONS, create_app
from services.policy.definition import Definition
from services.policy.settings import PolicySettings
from services.policy.store import PolicyStore
from tests.unit.conftest import ControlLog, Serve

DEMO = "http://127.0.0.1:9001/mcp"


def _store(settings: PolicySettings) -> PolicyStore:
    settings.data_dir.mkdir(exist_ok=True)
    return PolicyStore(open_database(settings.database_url, MIGRATIONS))


def test_the_first_start_registers_the_demo_for_everybody(settings: PolicySettings) -> None:
    store = _store(settings)
    store.initialize(DEMO)
    demo = store.servers.get("demo")
    assert (demo.definition.name, demo.definition.url) == ("Demo", DEMO)
    assert store.groups.get("default").servers["demo"].default == "allow"


def test_without_a_demo_url_there_is_no_demo(settings: PolicySettings) -> None:
    store = _store(settings)
    store.initialize(None)
    assert store.servers.list() == []


def test_a_later_start_brings_the_demo_to_its_new_port(settings: PolicySettings) -> None:
    store = _store(settings)
    store.initialize(DEMO)
    before = store.servers.get("demo").version
    store.initialize("http://127.0.0.1:9002/mcp")
    demo = store.servers.get("demo")
    assert demo.definition.url == "http://127.0.0.1:9002/mcp"
    assert demo.version > before


def test_a_demo_that_was_pointed_elsewhere_stays_there(settings: PolicySettings) -> None:
    store = _store(settings)
    store.initialize(DEMO)
    store.servers.put("demo", Definition(name="Demo", url="https://demo.example.com/mcp"))
    store.initialize("http://127.0.0.1:9002/mcp")
    assert store.servers.get("demo").definition.url == "https://demo.example.com/mcp"


def test_a_deleted_demo_does_not_come_back(settings: PolicySettings) -> None:
    store = _store(settings)
    store.initialize(DEMO)
    store.servers.delete("demo")
    store.initialize(DEMO)
    assert store.servers.list() == []


def test_a_demo_url_given_only_later_registers_nothing(settings: PolicySettings) -> None:
    store = _store(settings)
    store.initialize(None)
    store.initialize(DEMO)
    assert store.servers.list() == []


async def test_what_was_committed_and_not_published_is_in_the_log_after_a_start(
    settings: PolicySettings, control: ControlLog, serve: Serve
) -> None:
    store = _store(settings)
    store.initialize(None)
    store.servers.put("wiki", Definition(name="Wiki", url="https://wiki.example.com/mcp"))
    await control.put(Server(version=1, slug="gone", name="Gone", url="https://gone.example.com"))
    await control.put(Org(version=10**6, enabled=False))
    await serve(create_app(settings))
    assert await control.get("server.wiki") is not None
    assert await control.get("server.gone") is None
    org = await control.get("org")
    assert org is not None
    assert org["enabled"] is True


async def test_what_an_administrator_made_is_there_after_a_restart(settings: PolicySettings) -> None:
    store = _store(settings)
    store.initialize(None)
    store.servers.put("wiki", Definition(name="Wiki", url="https://wiki.example.com/mcp"), "allow")
    store.servers.switch("wiki", Off(reason="broken"), "ada")
    again = _store(settings)
    again.initialize(None)
    assert (again.servers.get("wiki").enabled, again.servers.get("wiki").reason) == (False, "broken")
    assert "wiki" in again.groups.get("default").servers


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_it_says_that_it_is_well(
    settings: PolicySettings, control: ControlLog, serve: Serve, path: str
) -> None:
    client = await serve(create_app(settings))
    assert (await client.get(path)).status_code == 200


async def test_the_api_is_described_without_pages_that_load_foreign_scripts(
    settings: PolicySettings, control: ControlLog, serve: Serve
) -> None:
    client = await serve(create_app(settings))
    described = (await client.get("/api/policy/openapi.json")).json()
    assert "/api/policy/servers/{slug}" in described["paths"]
    assert not any(path.startswith("/servers") for path in described["paths"])
    assert (await client.get("/docs")).status_code == 404
