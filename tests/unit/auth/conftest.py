"""A real auth service on a real NATS server and a real SQLite file."""

import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from argon2.profiles import RFC_9106_LOW_MEMORY
from pydantic import SecretStr

from libs.common.sql import sqlite_url
from services.auth import passwords
from services.auth.app import create_app
from services.auth.settings import AuthSettings
from services.auth.store.database import Database
from tests.conftest import Nats
from tests.unit.auth.house import EMAIL, ORIGIN, PASSWORD, Browser, Client, House

CHEAP = replace(RFC_9106_LOW_MEMORY, time_cost=1, memory_cost=8, parallelism=1)


@pytest.fixture(autouse=True)
def argon2(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes that cost next to nothing: almost every test makes three. Tests of the cost override it."""
    monkeypatch.setattr(passwords, "RFC_9106_LOW_MEMORY", CHEAP)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with the tables and nothing in them, to be copied: to make them takes as long as a test."""
    database = tmp_path_factory.mktemp("migrated") / "auth.db"
    opened = Database(sqlite_url(database))
    opened.open()
    opened.close()
    return database


@pytest.fixture
def settings(nats: Nats, tmp_path: Path, migrated: Path) -> AuthSettings:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    shutil.copy(migrated, data)
    return AuthSettings(
        public_url=ORIGIN,
        data_dir=data,
        nats_url=nats.url,
        auth_admin_email=EMAIL,
        auth_admin_password=SecretStr(PASSWORD),
    )


@pytest.fixture
async def house(settings: AuthSettings) -> AsyncIterator[House]:
    app = create_app(settings)
    house = House(app, settings)
    async with app.router.lifespan_context(app):
        yield house
        await house.close()


@pytest.fixture
async def browser(house: House) -> Browser:
    """The administrator's browser, signed in."""
    return await house.signed_in()


@pytest.fixture
async def client(house: House) -> Client:
    return await house.client()
