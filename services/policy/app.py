"""The policy service."""

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI

from libs.common import health
from libs.common.bus import Bus
from libs.common.control.entries import AnyEntry
from libs.common.control.follower import Follower
from libs.common.control.owner import Owner
from libs.common.journal import Journal
from libs.common.lifecycle import running
from libs.common.shipper import Shipper
from libs.common.sql import open_database
from libs.common.web.console import install_console
from services.policy import api, console
from services.policy.assignment import Assignment
from services.policy.changes import Changes
from services.policy.confirmation import Confirmation
from services.policy.demo import DemoFeatures
from services.policy.departures import departures
from services.policy.dependencies import Parts
from services.policy.explain import Explainer
from services.policy.relearning import Relearning
from services.policy.replay import Replays
from services.policy.settings import PolicySettings
from services.policy.store import KINDS, PolicyStore
from services.policy.timer import Timer
from services.policy.upstream import Upstreams

MIGRATIONS = Path(__file__).parent / "migrations"
# Bytes. An organization of a hundred thousand people names them all in its access document.
LARGER = dict.fromkeys(("/api/policy/access", "/api/policy/access/plan"), 8 * 1024 * 1024)


def create_app(settings: PolicySettings) -> FastAPI:
    """The service's app. It opens and migrates the database; its lifespan connects to NATS."""
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    engine = open_database(settings.database_url, MIGRATIONS)
    store = PolicyStore(engine)
    ask_demo = store.initialize(settings.policy_demo_url)

    async def desired(keys: Collection[str] | None) -> Mapping[str, AnyEntry]:
        return await asyncio.to_thread(store.entries, keys)

    bus = Bus(settings, "policy")
    follower = Follower(bus, settings)
    owner = Owner(bus, follower, settings, KINDS, desired)
    journal = Journal(settings.data_dir / "policy-journal")
    shipper = Shipper(bus, journal, settings)
    changes, upstreams = Changes(owner, journal), Upstreams(bus, settings)
    assignment = Assignment(bus, store, changes)
    demo = DemoFeatures(store, upstreams, changes, wanted=ask_demo)
    relearning = Relearning(bus, store, upstreams, changes, every=settings.policy_relearn_every)
    timer, leaving = Timer(store, changes, follower), departures(bus, store, changes, follower)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        parts = (bus, follower, owner, journal, shipper, assignment, demo, timer, leaving, relearning)
        async with running(*parts):
            yield
        engine.dispose()

    app = FastAPI(
        title="Lockgate policy",
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/policy/openapi.json",
        lifespan=lifespan,
    )
    app.state.journal, app.state.follower = journal, follower
    explainer, replays = Explainer(bus, follower), Replays(bus, follower)
    confirmation = Confirmation(bus, owner, follower)
    app.state.parts = Parts(settings, store, changes, confirmation, upstreams, explainer, replays, journal)
    install_console(app, settings, follower.tables, larger=LARGER)
    app.include_router(api.router)
    app.include_router(console.router)
    app.router.routes.extend(health.routes(health.checks(bus, follower, journal)))
    return app
