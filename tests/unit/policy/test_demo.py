"""The demo server's tools are there without anybody asking for them."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from libs.common.sql import open_database
from services.policy import demo
from services.policy.app import MIGRATIONS, create_app
from services.policy.features import Feature, Features
from services.policy.settings import PolicySettings
from services.policy.store import PolicyStore
from tests.conftest import eventually, free_port
from tests.unit.conftest import ControlLog, Serve, Shipped
from tests.unit.policy.conftest import StartUpstream


@pytest.fixture
def store(settings: PolicySettings) -> PolicyStore:
    """The service's tables, looked at from outside."""
    settings.data_dir.mkdir(exist_ok=True)
    return PolicyStore(open_database(settings.database_url, MIGRATIONS))


@pytest.fixture(autouse=True)
async def _fast(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """Retries follow each other at once; no task is left behind by a service that has stopped."""
    monkeypatch.setattr(demo, "RETRY_AFTER", 0.05)
    yield


def _with_demo(settings: PolicySettings, url: str) -> PolicySettings:
    return settings.model_copy(update={"policy_demo_url": url})


async def _tools(control: ControlLog) -> list[str]:
    """The demo's tools as the control log has them, waited for."""
    async with asyncio.timeout(10):
        while not (tools := (await control.get("server.demo") or {}).get("tools")):
            await asyncio.sleep(0.01)
    names: list[str] = tools
    return names


async def test_the_first_start_reads_them_and_says_so_in_the_record(
    settings: PolicySettings, control: ControlLog, serve: Serve, upstream: StartUpstream, shipped: Shipped
) -> None:
    server = await upstream(("add", "Adds"), ("now", ""))
    await serve(create_app(_with_demo(settings, server.url)))
    assert await _tools(control) == ["add", "now"]
    events: list[dict[str, Any]] = []
    async with asyncio.timeout(10):
        while not events:
            events = await shipped("admin_events")
    assert [(event["event"], event["actor"]) for event in events] == [("features_learned", "policy")]
    assert json.loads(events[0]["after"])["tools"] == ["add", "now"]


async def test_a_demo_that_is_not_ready_is_asked_again(
    settings: PolicySettings, control: ControlLog, serve: Serve, upstream: StartUpstream
) -> None:
    server = await upstream(("add", ""), wants=("x-ready", "yes"))
    await serve(create_app(_with_demo(settings, server.url)))
    await eventually(lambda: server.seen)
    server.wants = None
    assert await _tools(control) == ["add"]


async def test_a_demo_that_never_answers_keeps_nothing_from_starting_or_stopping(
    settings: PolicySettings, control: ControlLog, store: PolicyStore
) -> None:
    app = create_app(_with_demo(settings, f"http://127.0.0.1:{free_port()}/mcp"))
    async with asyncio.timeout(20), app.router.lifespan_context(app):
        await eventually(lambda: not [t for t in asyncio.all_tasks() if t.get_name() == "demo-features"])
    assert store.server("demo").features == Features()


async def test_the_service_stops_while_it_still_waits_for_the_demo(
    settings: PolicySettings, control: ControlLog, silent_port: int
) -> None:
    app = create_app(_with_demo(settings, f"http://127.0.0.1:{silent_port}/mcp"))
    async with asyncio.timeout(20), app.router.lifespan_context(app):
        assert [t for t in asyncio.all_tasks() if t.get_name() == "demo-features"]
    assert not [t for t in asyncio.all_tasks() if t.get_name() == "demo-features"]


def test_it_is_asked_when_it_is_new_has_moved_or_never_told_them(store: PolicyStore) -> None:
    first, second = "http://127.0.0.1:9001/mcp", "http://127.0.0.1:9002/mcp"
    assert store.initialize(first)
    assert store.initialize(first)
    store.set_features("demo", Features(tools=(Feature("add"),)))
    assert not store.initialize(first)
    assert store.initialize(second)
    assert not store.initialize(second)
    assert not store.initialize(None)


def test_a_demo_that_was_deleted_or_never_wanted_is_not_asked(store: PolicyStore) -> None:
    assert not store.initialize(None)
    assert not store.initialize("http://127.0.0.1:9001/mcp")
