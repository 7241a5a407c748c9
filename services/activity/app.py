"""The activity service: records from the stream into ClickHouse, and the dashboard over them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from libs.common import health
from libs.common.bus import Bus
from libs.common.control.follower import Follower
from libs.common.lifecycle import running
from libs.common.web.console import install_console
from services.activity import api, console
from services.activity.clickhouse import ClickHouse
from services.activity.consumer import Consumer
from services.activity.feed import Feed
from services.activity.ingest import Ingest
from services.activity.recorded import Recorded
from services.activity.settings import ActivitySettings
from services.activity.store import ActivityStore, RecordStore


def create_app(settings: ActivitySettings) -> FastAPI:
    """Build the service. Collaborators are on `app.state`; they start with the app's lifespan."""
    bus = Bus(settings, "activity")
    follower = Follower(bus, settings)
    clickhouse = ClickHouse(settings)
    ingest = Ingest(RecordStore(clickhouse))
    feed = Feed(bus, settings)
    consumer = Consumer(feed, ingest)
    recorded = Recorded(bus, clickhouse)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with running(clickhouse, bus, follower, consumer, recorded):
            yield

    app = FastAPI(
        title="Lockgate activity",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/activity/openapi.json",
    )
    app.state.settings, app.state.bus, app.state.follower = settings, bus, follower
    app.state.clickhouse, app.state.store = clickhouse, ActivityStore(clickhouse)
    app.state.feed, app.state.ingest, app.state.consumer = feed, ingest, consumer
    install_console(app, settings, follower.tables)
    app.include_router(api.router)
    app.include_router(console.router)
    app.router.routes.extend(health.routes(_checks(bus, follower, clickhouse, consumer)))
    return app


def _checks(bus: Bus, follower: Follower, clickhouse: ClickHouse, consumer: Consumer) -> health.Checks:
    return {
        "nats": lambda: None if bus.connected else "NATS does not answer",
        "control_log": lambda: None if follower.complete else "the control log has not been read yet",
        "clickhouse": lambda: clickhouse.problem,
        "consumer": lambda: consumer.problem,
    }
