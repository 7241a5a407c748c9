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
from services.credentials import api, console, mine, rotation_console
from services.credentials.bus import CredentialServer
from services.credentials.changes import Changes
from services.credentials.departures import departures
from services.credentials.dependencies import Parts
from services.credentials.masterkey.load import load
from services.credentials.oauth import api as oauth_api
from services.credentials.oauth import console as oauth_console
from services.credentials.oauth import parts as oauth_parts
from services.credentials.oauth import provider_console
from services.credentials.rotation import Rotation
from services.credentials.settings import CredentialsSettings
from services.credentials.store import KINDS, CredentialStore
from services.credentials.store.keys import unlock, was_sealed

MIGRATIONS = Path(__file__).parent / "migrations"


def create_app(settings: CredentialsSettings) -> FastAPI:
    """The service's app. It opens and migrates the database; its lifespan connects to NATS.

    Raises `BadSettings` when the master key is missing or is not the one of this vault.
    """
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    engine = open_database(settings.database_url, MIGRATIONS)
    vault = unlock(engine, load(settings, vault_exists=was_sealed(engine)))
    store = CredentialStore(engine, vault)

    async def desired(keys: Collection[str] | None) -> Mapping[str, AnyEntry]:
        return await asyncio.to_thread(store.accounts.entries, keys)

    bus = Bus(settings, "credentials")
    follower = Follower(bus, settings)
    owner = Owner(bus, follower, settings, KINDS, desired)
    journal = Journal(settings.data_dir / "credentials-journal")
    shipper = Shipper(bus, journal, settings)
    changes = Changes(owner, journal)
    oauth = oauth_parts.wire(
        settings, store, bus, follower=follower, owner=owner, journal=journal, changes=changes
    )
    server = CredentialServer(bus, follower, store, journal, oauth.refreshing)
    leaving = departures(bus, store.accounts, changes, follower)
    rotation = Rotation(bus, store.master_keys, vault.key_ids, journal)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with running(bus, follower, owner, journal, shipper, *oauth.parts, server, rotation, leaving):
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
    app.state.parts = Parts(settings, store, changes, follower, rotation)
    oauth_parts.install(app, oauth)
    install_console(app, settings, follower.tables)
    app.include_router(oauth_api.router)
    app.include_router(oauth_console.router)
    app.include_router(provider_console.router)
    app.include_router(api.router)
    app.include_router(mine.router)
    app.include_router(console.router)
    app.include_router(rotation_console.router)
    app.router.routes.extend(health.routes(health.checks(bus, follower, journal)))
    return app
