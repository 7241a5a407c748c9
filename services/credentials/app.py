"""The credentials service."""

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
from services.credentials import api, console
from services.credentials.bus import CredentialServer
from services.credentials.changes import Changes
from services.credentials.dependencies import Parts
from services.credentials.settings import CredentialsSettings
from services.credentials.store import KINDS, CredentialStore, unlock

MIGRATIONS = Path(__file__).parent / "migrations"


def create_app(settings: CredentialsSettings) -> FastAPI:
    """The service's app. It opens and migrates the database; its lifespan connects to NATS.

    Raises `BadSettings` when the master key is missing or is not the one of this vault.
    """
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    engine = open_database(settings.database_url, MIGRATIONS)
    store = CredentialStore(engine, unlock(engine, settings))

    async def desired(keys: Collection[str] | None) -> Mapping[str, AnyEntry]:
        return await asyncio.to_thread(store.entries, keys)

    bus = Bus(settings, "credentials")
    follower = Follower(bus, settings)
    owner = Owner(bus, follower, settings, KINDS, desired)
    journal = Journal(settings.data_dir / "credentials-journal")
    shipper = Shipper(bus, journal, settings)
    server = CredentialServer(bus, follower, store, journal)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with running(bus, follower, owner, journal, shipper, server):
            yield
        engine.dispose()

    app = FastAPI(
        title="Lockgate credentials",
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/credentials/openapi.json",
        lifespan=lifespan,
    )
    app.state.journal, app.state.follower = journal, follower
    app.state.parts = Parts(settings, store, Changes(owner, journal), follower)
    install_console(app, settings, follower.tables)
    app.include_router(api.router)
    app.include_router(console.router)
    app.router.routes.extend(
        health.routes(
            {
                "bus": lambda: None if bus.connected else f"NATS at {settings.nats_url} is not connected",
                "control": lambda: None if follower.complete else "the control log has not been read yet",
            }
        )
    )
    return app
