"""A real auth service on a real NATS server and a real SQLite file."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from services.auth.app import create_app
from services.auth.settings import AuthSettings
from tests.conftest import Nats
from tests.unit.auth.house import EMAIL, ORIGIN, PASSWORD, Browser, Client, House


@pytest.fixture
def settings(nats: Nats, tmp_path: Path) -> AuthSettings:
    return AuthSettings(
        public_url=ORIGIN,
        data_dir=tmp_path / "data",
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
