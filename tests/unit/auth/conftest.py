"""A real auth service on a real NATS server and a real SQLite file."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from argon2.profiles import RFC_9106_LOW_MEMORY
from pydantic import SecretStr

from services.auth import passwords
from services.auth.app import create_app
from services.auth.settings import AuthSettings
from services.auth.store.database import MIGRATIONS
from tests.conftest import Nats
from tests.unit.auth.house import EMAIL, ORIGIN, PASSWORD, Browser, Client, House
from tests.unit.conftest import Migrated

CHEAP = replace(RFC_9106_LOW_MEMORY, time_cost=1, memory_cost=8, parallelism=1)


@pytest.fixture(autouse=True)
def argon2(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes that cost next to nothing: almost every test makes three. Tests of the cost override it."""
    monkeypatch.setattr(passwords, "RFC_9106_LOW_MEMORY", CHEAP)


@pytest.fixture
def settings(nats: Nats, tmp_path: Path, migrated: Migrated) -> AuthSettings:
    data = tmp_path / "data"
    migrated(MIGRATIONS, data / "auth.db")
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
