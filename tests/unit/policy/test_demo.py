"""The demo server's tools are there without anybody asking for them."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from libs.common.requests import LEARN, Learned, LearnServer
from libs.common.sql import open_database
from services.policy import demo
from services.policy.app import MIGRATIONS, create_app
from services.policy.features import Feature, Features
from services.policy.settings import PolicySettings
from services.policy.store import PolicyStore
from tests.conftest import eventually, free_port
from tests.unit.conftest import ControlLog, Serve, Shipped
from tests.unit.policy.conftest import StartGateway, StartUpstream


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


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Why the log says that the tools are not known, each time that it says so."""
    details: list[str] = []
    monkeypatch.setattr(demo.log, "info", lambda _, detail="", **__: details.append(detail))
    return details


def _with_demo(settings: PolicySettings, url: str) -> PolicySettings:
    return settings.model_copy(update={"policy_demo_url": url})


async def _tools(control: ControlLog) -> list[str]:
    """The demo's tools as the control log has them, waited for."""
    async with asyncio.timeout(10):
        while not (tools := (await control.get("server.demo") or {}).get("tools")):
            await asyncio.sleep(0.01)
    names: list[str] = sorted(tools)
    return names


def counted(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """Grows with every attempt."""
    attempts: list[None] = []
    attempt = demo.DemoFeatures._attempt

    async def counting(self: demo.DemoFeatures) -> None:
        attempts.append(None)
        await attempt(self)

    monkeypatch.setattr(demo.DemoFeatures, "_attempt", counting)
    return attempts


def _waiting() -> bool:
    return any(task.get_name() == "demo-features" for task in asyncio.all_tasks())


async def test_the_first_start_reads_them_and_says_so_in_the_record(
    settings: PolicySettings,
    control: ControlLog,
    serve: Serve,
    gateway: StartGateway,
    upstream: StartUpstream,
    shipped: Shipped,
) -> None:
    server = await upstream(("add", "Adds"), ("now", ""))
    await gateway()
    await serve(create_app(_with_demo(settings, server.url)))
    assert await _tools(control) == ["add", "now"]
    events: list[dict[str, Any]] = []
    async with asyncio.timeout(10):
        while not events:
            events = await shipped("admin_events")
    assert [(event["event"], event["actor"]) for event in events] == [("features_learned", "policy")]
    assert json.loads(events[0]["after"])["tools"] == ["add", "now"]


async def test_a_demo_that_is_not_ready_is_asked_again(
    settings: PolicySettings,
    control: ControlLog,
    serve: Serve,
    gateway: StartGateway,
    upstream: StartUpstream,
) -> None:
    server = await upstream(("add", ""), wants=("x-ready", "yes"))
    await gateway()
    await serve(create_app(_with_demo(settings, server.url)))
    await eventually(lambda: server.seen)
    server.wants = None
    assert await _tools(control) == ["add"]


async def test_a_gateway_that_starts_later_is_waited_for_without_many_words(
    settings: PolicySettings,
    control: ControlLog,
    serve: Serve,
    gateway: StartGateway,
    upstream: StartUpstream,
    said: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = await upstream(("add", ""))
    attempts = counted(monkeypatch)
    await serve(create_app(_with_demo(settings, server.url)))
    await eventually(lambda: len(attempts) > 10)
    assert said == ["No gateway answers that could ask it."]
    await gateway()
    assert await _tools(control) == ["add"]


async def test_a_demo_that_never_answers_keeps_nothing_from_starting_and_is_given_up(
    settings: PolicySettings, control: ControlLog, store: PolicyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "PATIENCE", 0.3)
    app = create_app(_with_demo(settings, f"http://127.0.0.1:{free_port()}/mcp"))
    async with asyncio.timeout(20), app.router.lifespan_context(app):
        await eventually(lambda: not _waiting())
    assert store.servers.get("demo").features == Features()


async def test_the_service_stops_while_it_still_waits_for_an_answer(
    settings: PolicySettings, control: ControlLog
) -> None:
    asked, stopped = asyncio.Event(), asyncio.Event()

    async def learn(_: LearnServer) -> Learned:
        asked.set()
        await stopped.wait()
        return Learned()

    await control.bus.serve(LEARN, LearnServer, learn)
    await control.bus.client.flush()
    app = create_app(_with_demo(settings, "http://127.0.0.1:1/mcp"))
    async with asyncio.timeout(20), app.router.lifespan_context(app):
        await asked.wait()
        assert _waiting()
    assert not _waiting()
    stopped.set()


def test_it_is_asked_when_it_is_new_has_moved_or_never_told_them(store: PolicyStore) -> None:
    first, second = "http://127.0.0.1:9001/mcp", "http://127.0.0.1:9002/mcp"
    assert store.initialize(first)
    assert store.initialize(first)
    store.servers.set_features("demo", Features(tools=(Feature("add"),)))
    assert not store.initialize(first)
    assert store.initialize(second)
    assert not store.initialize(second)
    assert not store.initialize(None)


def test_a_demo_that_was_deleted_or_never_wanted_is_not_asked(store: PolicyStore) -> None:
    assert not store.initialize(None)
    assert not store.initialize("http://127.0.0.1:9001/mcp")
