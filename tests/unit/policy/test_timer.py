"""What is switched off until some time is on again then, with nobody there to do it."""

import asyncio
import json
from datetime import timedelta
from typing import Any

import httpx2
import pytest

from libs.common.clock import iso, now
from libs.common.control.entries import Off
from libs.common.sql import open_database
from services.policy.app import MIGRATIONS, create_app
from services.policy.definition import Definition
from services.policy.settings import PolicySettings
from services.policy.store import PolicyStore
from tests.unit.conftest import ControlLog, Person, Serve, Shipped, SignIn
from tests.unit.policy.conftest import Policy
from tests.unit.records import admin_events

WIKI = Definition(name="Wiki", url="https://wiki.example.com/mcp")
SWITCH = "/api/policy/switches/server/wiki"


def _in(seconds: float) -> str:
    return iso(now() + timedelta(seconds=seconds))


async def _entry(control: ControlLog, *, enabled: bool) -> dict[str, Any]:
    """The server's entry once it is on, or off."""
    async with asyncio.timeout(15):
        while (entry := await control.get("server.wiki") or {}).get("enabled") is not enabled:
            await asyncio.sleep(0.02)
    return entry


@pytest.fixture
def overdue(settings: PolicySettings) -> PolicyStore:
    """The database of a policy service that was stopped, where the server's end came meanwhile."""
    settings.data_dir.mkdir(exist_ok=True)
    store = PolicyStore(open_database(settings.database_url, MIGRATIONS))
    store.initialize(None)
    store.servers.put("wiki", WIKI)
    store.servers.switch("wiki", Off(reason="audit", until=_in(-60)), "ada")
    return store


async def test_it_is_on_again_at_its_end_and_the_record_says_that_the_timer_did_it(
    policy: Policy, shipped: Shipped
) -> None:
    await policy.add("wiki")
    until = _in(1)
    await policy.api.put(SWITCH, json={"reason": "audit", "until": until})
    assert (await _entry(policy.control, enabled=False))["until"] == until
    entry = await _entry(policy.control, enabled=True)
    assert iso(now()) >= until
    assert (entry["reason"], entry["until"]) == ("", "")
    ended = (await admin_events(shipped, 3))[-1]
    assert (ended["event"], ended["actor"], ended["subject"]) == ("server_enabled", "timer", "server.wiki")
    assert json.loads(ended["before"])["until"] == until
    assert ended["revision"] > 0


async def test_an_end_that_is_put_off_does_not_come(policy: Policy) -> None:
    await policy.add("wiki")
    await policy.add("docs")
    await policy.api.put(SWITCH, json={"until": _in(1)})
    await policy.api.put(SWITCH, json={"until": _in(3600)})
    await policy.api.put("/api/policy/switches/server/docs", json={"until": _in(1.5)})
    async with asyncio.timeout(15):  # the later one has ended, so the earlier would have
        while not (await policy.control.get("server.docs") or {})["enabled"]:
            await asyncio.sleep(0.02)
    assert (await policy.api.get(SWITCH)).status_code == 200


async def test_what_ended_while_no_service_ran_is_on_after_the_start(
    overdue: PolicyStore, settings: PolicySettings, control: ControlLog, serve: Serve, shipped: Shipped
) -> None:
    await serve(create_app(settings))
    await _entry(control, enabled=True)
    (ended,) = await admin_events(shipped, 1)
    assert (ended["event"], ended["actor"]) == ("server_enabled", "timer")


async def test_of_two_services_one_ends_it_and_records_it(
    overdue: PolicyStore,
    settings: PolicySettings,
    control: ControlLog,
    serve: Serve,
    sign_in: SignIn,
    shipped: Shipped,
) -> None:
    admin = await sign_in("admin", "ada")
    first = await _second_process(settings, serve, admin, "one")
    await _second_process(settings, serve, admin, "two")
    await _entry(control, enabled=True)
    await first.put("/api/policy/organization/switch", json={"enabled": False})
    events = await admin_events(shipped, 2)
    assert [(event["event"], event["actor"]) for event in events] == [
        ("server_enabled", "timer"),
        ("organization_disabled", "ada"),
    ]


async def test_an_end_that_another_service_took_is_kept_when_that_one_is_gone(
    settings: PolicySettings, control: ControlLog, serve: Serve, sign_in: SignIn
) -> None:
    admin = await sign_in("admin", "ada")
    database = settings.model_copy(update={"policy_database_url": settings.database_url})
    settings.data_dir.mkdir(exist_ok=True)
    gone = create_app(database.model_copy(update={"data_dir": settings.data_dir / "gone"}))
    await _second_process(settings, serve, admin, "left")
    async with gone.router.lifespan_context(gone):
        transport = httpx2.ASGITransport(gone)
        async with httpx2.AsyncClient(
            transport=transport, base_url=settings.public_url, headers=admin.script
        ) as client:
            body = {"name": "Wiki", "url": WIKI.url}
            assert (await client.put("/api/policy/servers/wiki", json=body)).status_code == 200
            assert (await client.put(SWITCH, json={"until": _in(2)})).status_code == 200
    await _entry(control, enabled=True)


async def _second_process(
    settings: PolicySettings, serve: Serve, admin: Person, name: str
) -> httpx2.AsyncClient:
    """Another policy service on the same database, with a journal of its own."""
    own = settings.model_copy(
        update={"data_dir": settings.data_dir / name, "policy_database_url": settings.database_url}
    )
    client = await serve(create_app(own))
    client.headers.update(admin.script)
    return client
