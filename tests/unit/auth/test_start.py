"""Starting: the first administrator, restarts, settings."""

import stat
from pathlib import Path

import pytest
from pydantic import SecretStr

from libs.common.settings import BadSettings, load
from services.auth.app import create_app
from services.auth.people import FirstAdministrator
from services.auth.settings import AuthSettings
from tests.conftest import Nats
from tests.unit.auth.house import EMAIL, House


async def test_the_first_start_makes_an_administrator_whose_password_is_told_once(
    nats: Nats, tmp_path: Path
) -> None:
    settings = AuthSettings(data_dir=tmp_path, nats_url=nats.url)
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        made: FirstAdministrator = app.state.first_administrator
        assert (made.email, made.generated) == (EMAIL, True)
        house = House(app, settings)
        assert (await house.browser().sign_in(made.email, made.password)).status_code == 303
        await house.close()
    again = create_app(settings)
    async with again.router.lifespan_context(again):
        assert again.state.first_administrator is None


async def test_tokens_survive_a_restart(settings: AuthSettings) -> None:
    first = create_app(settings)
    async with first.router.lifespan_context(first):
        house = House(first, settings)
        client, browser = await house.client(), await house.signed_in()
        tokens, cookies = await client.connect(browser), dict(browser.http.cookies)
        await house.close()
    second = create_app(settings)
    async with second.router.lifespan_context(second):
        house = House(second, settings)
        assert house.claims(tokens["access_token"]).client_id == client.id
        client.http = house.http()
        assert (await client.refresh(tokens["refresh_token"])).status_code == 200
        browser = house.browser()
        browser.http.cookies.update(cookies)
        assert (await browser.get("/account")).status_code == 200
        await house.close()


async def test_the_database_is_for_its_owner_only(nats: Nats, tmp_path: Path) -> None:
    app = create_app(AuthSettings(data_dir=tmp_path, nats_url=nats.url))
    async with app.router.lifespan_context(app):
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.glob("auth.db*")}
    assert modes == dict.fromkeys(("auth.db", "auth.db-wal", "auth.db-shm"), 0o600)


async def test_health_is_told(house: House) -> None:
    http = house.http()
    assert (await http.get("/healthz")).status_code == 200
    assert (await http.get("/readyz")).status_code == 200
    assert (await http.get("/api/auth/openapi.json")).json()["info"]["title"] == "Lockgate auth"
    assert (await http.get("/docs")).status_code == 404


async def test_cookies_are_bound_to_the_host_on_https(nats: Nats, tmp_path: Path) -> None:
    settings = AuthSettings(
        public_url="https://gate.example",
        data_dir=tmp_path,
        nats_url=nats.url,
        auth_admin_password=SecretStr("correct horse battery"),
    )
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        house = House(app, settings)
        answer = await house.browser().sign_in()
        for cookie in answer.headers.get_list("set-cookie"):
            assert cookie.startswith("__Host-lockgate")
            assert "Secure" in cookie
            assert "Domain" not in cookie
        await house.close()


def test_bad_settings_are_reported_at_once() -> None:
    with pytest.raises(BadSettings) as bad:
        load(AuthSettings, auth_admin_email="nobody", auth_admin_password="short")
    assert "LOCKGATE_AUTH_ADMIN_EMAIL" in str(bad.value)
    assert "LOCKGATE_AUTH_ADMIN_PASSWORD" in str(bad.value)
    assert "short" not in str(bad.value)
