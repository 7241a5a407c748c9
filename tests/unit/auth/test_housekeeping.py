"""Clients that nobody uses are forgotten; those that somebody uses stay."""

import pytest

from services.auth.domain import GRANT_KEPT, REFRESH_LIFETIME, UNUSED_CLIENT_KEPT
from services.auth.housekeeping import Housekeeping
from services.auth.rotation import Rotation
from services.auth.settings import DAY
from tests.unit.auth.house import SAME_ORIGIN, Browser, Client, House


async def sweep(house: House) -> None:
    parts = house.parts
    rotation = Rotation(parts.store, parts.keys, parts.owner, 90 * DAY)
    await Housekeeping(parts.store, rotation).sweep()


def known(house: House, client: Client) -> bool:
    return house.parts.store.clients.get(client.id) is not None


async def test_a_client_without_a_grant_is_forgotten_after_thirty_days(house: House, client: Client) -> None:
    house.age("clients", "created_at", UNUSED_CLIENT_KEPT - 60)
    await sweep(house)
    assert known(house, client)
    house.age("clients", "created_at", 61)
    await sweep(house)
    assert not known(house, client)
    answer = await client.token(grant_type="refresh_token", refresh_token="x")
    assert answer.json()["error"] == "invalid_client"


async def test_a_client_in_use_is_kept_however_old_it_is(
    house: House, browser: Browser, client: Client
) -> None:
    token = (await client.connect(browser))["refresh_token"]
    house.age("clients", "created_at", 10 * GRANT_KEPT)
    house.age("grants", "last_used_at", REFRESH_LIFETIME - 60)
    await sweep(house)
    assert (await client.refresh(token)).status_code == 200


async def test_a_client_whose_grants_ended_is_forgotten_after_another_180_days(
    house: House, browser: Browser, client: Client
) -> None:
    tokens = await client.connect(browser)
    await client.http.post("/oauth/revoke", data={"token": tokens["refresh_token"], "client_id": client.id})
    house.age("clients", "created_at", 2 * GRANT_KEPT)
    house.age("codes", "expires_at", 2 * DAY)
    house.age("grants", "revoked_at", GRANT_KEPT - 60)
    await sweep(house)
    assert known(house, client)
    house.age("grants", "revoked_at", 61)
    await sweep(house)
    assert not known(house, client)


async def test_a_grant_that_ran_out_counts_as_ended(house: House, browser: Browser, client: Client) -> None:
    await client.connect(browser)
    house.age("clients", "created_at", 3 * GRANT_KEPT)
    house.age("codes", "expires_at", 2 * DAY)
    house.age("grants", "last_used_at", REFRESH_LIFETIME + 1)
    house.age("refresh_tokens", "expires_at", REFRESH_LIFETIME + 1)
    await sweep(house)
    assert known(house, client)
    house.age("grants", "revoked_at", GRANT_KEPT + 1)
    await sweep(house)
    assert not known(house, client)


async def test_one_living_grant_keeps_a_client(house: House, browser: Browser, client: Client) -> None:
    tokens, _ = await client.connect(browser), await client.connect(browser)
    await client.http.post("/oauth/revoke", data={"token": tokens["refresh_token"], "client_id": client.id})
    house.age("clients", "created_at", 2 * GRANT_KEPT)
    house.age("codes", "expires_at", 2 * DAY)
    house.age("grants", "revoked_at", 2 * GRANT_KEPT)
    await sweep(house)
    assert known(house, client)


@pytest.mark.parametrize("step", ["consented", "device"])
async def test_a_client_that_is_about_to_be_used_is_kept(
    house: House, browser: Browser, client: Client, step: str
) -> None:
    code = ""
    if step == "consented":
        code = await client.consent(browser)
    else:
        client = await house.client(grant_types=["urn:ietf:params:oauth:grant-type:device_code"])
        await client.http.post("/oauth/device_authorization", data={"client_id": client.id})
    house.age("clients", "created_at", 2 * UNUSED_CLIENT_KEPT)
    await sweep(house)
    assert known(house, client)
    if code:
        assert (await client.exchange(code)).status_code == 200


async def test_an_administrators_client_never_expires(house: House, browser: Browser) -> None:
    body = {"name": "Billing", "rights": ["introspect"]}
    made = await browser.http.post("/api/auth/clients", json=body, headers=SAME_ORIGIN)
    house.age("clients", "created_at", 10 * GRANT_KEPT)
    await sweep(house)
    assert house.parts.store.clients.get(made.json()["id"])


async def test_links_that_have_expired_are_swept_away(house: House, browser: Browser) -> None:
    await browser.http.post("/api/auth/invitations", json={"email": "a@example.com"}, headers=SAME_ORIGIN)
    house.age("links", "expires_at", 8 * DAY)
    await sweep(house)
    with house.parts.store.database.engine.begin() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM links").scalar() == 0
