"""Clients that cannot open a browser (RFC 8628)."""

from typing import Any

import httpx2
import pytest

from services.auth.domain import DEVICE_GRANT
from tests.unit.auth.house import SERVER, Browser, Client, House


@pytest.fixture
async def device(house: House) -> Client:
    return await house.client(grant_types=[DEVICE_GRANT, "refresh_token"], redirect_uris=[])


async def begin(device: Client, **params: str) -> dict[str, Any]:
    form = {"client_id": device.id, "resource": SERVER, "scope": "mcp offline_access", **params}
    answer = await device.http.post("/oauth/device_authorization", data=form)
    assert answer.status_code == 200, answer.text
    begun: dict[str, Any] = answer.json()
    return begun


async def poll(device: Client, begun: dict[str, Any]) -> httpx2.Response:
    return await device.token(grant_type=DEVICE_GRANT, device_code=begun["device_code"])


async def answer(browser: Browser, begun: dict[str, Any], decision: str) -> httpx2.Response:
    return await browser.post("/oauth/device", {"user_code": begun["user_code"], "decision": decision})


def patient(house: House) -> None:
    """As if the client had waited since its last poll."""
    house.age("device_codes", "polled_at", 60)


async def test_a_person_types_the_code_and_the_device_gets_its_tokens(
    house: House, browser: Browser, device: Client
) -> None:
    begun = await begin(device)
    assert (await poll(device, begun)).json()["error"] == "authorization_pending"
    page = await browser.get(f"/oauth/device?user_code={begun['user_code'].lower().replace('-', ' ')}")
    for fact in ("Test client", begun["user_code"], SERVER):
        assert fact in page.text
    assert "is connected" in (await answer(browser, begun, "allow")).text
    patient(house)
    tokens = (await poll(device, begun)).json()
    assert house.claims(tokens["access_token"]).client_id == device.id
    assert (await device.refresh(tokens["refresh_token"])).status_code == 200
    assert house.event("granted").server == "demo"


async def test_the_answer_says_where_to_go_and_how_often_to_ask(device: Client) -> None:
    begun = await begin(device)
    assert begun["verification_uri_complete"] == f"{begun['verification_uri']}?user_code={begun['user_code']}"
    assert (begun["expires_in"], begun["interval"]) == (600, 5)


async def test_somebody_not_signed_in_comes_back_after_the_login(house: House, device: Client) -> None:
    begun = await begin(device)
    page = await house.browser().get(f"/oauth/device?user_code={begun['user_code']}")
    assert page.headers["location"].startswith("/login?next=%2Foauth%2Fdevice%3Fuser_code%3D")


async def test_what_a_person_denies_is_denied(house: House, browser: Browser, device: Client) -> None:
    begun = await begin(device)
    await answer(browser, begun, "deny")
    assert (await poll(device, begun)).json()["error"] == "access_denied"
    assert house.event("consented").reason == "denied_by_user"


async def test_a_device_that_asks_too_often_has_to_slow_down(device: Client) -> None:
    begun = await begin(device)
    await poll(device, begun)
    assert (await poll(device, begun)).json()["error"] == "slow_down"


async def test_a_code_expires(house: House, browser: Browser, device: Client) -> None:
    begun = await begin(device)
    house.age("device_codes", "expires_at", 601)
    assert (await poll(device, begun)).json()["error"] == "expired_token"
    assert (await answer(browser, begun, "allow")).status_code == 404


async def test_tokens_are_given_once(house: House, browser: Browser, device: Client) -> None:
    begun = await begin(device)
    await answer(browser, begun, "allow")
    assert (await poll(device, begun)).status_code == 200
    patient(house)
    assert (await poll(device, begun)).json()["error"] == "invalid_grant"
    assert (await answer(browser, begun, "allow")).status_code == 404


async def test_a_device_code_is_no_authorization_code(house: House, browser: Browser, device: Client) -> None:
    begun = await begin(device)
    await answer(browser, begun, "allow")
    other = Client(device.http, device.id)
    assert (await other.exchange(begun["device_code"])).status_code == 400


async def test_another_client_gets_nothing_by_the_code(
    house: House, browser: Browser, device: Client
) -> None:
    begun = await begin(device)
    await answer(browser, begun, "allow")
    thief = await house.client(grant_types=[DEVICE_GRANT], redirect_uris=[])
    assert (await poll(thief, begun)).json()["error"] == "invalid_grant"
    patient(house)
    assert (await poll(device, begun)).status_code == 200


async def test_a_client_that_did_not_register_for_it_cannot_begin(client: Client) -> None:
    refused = await client.http.post("/oauth/device_authorization", data={"client_id": client.id})
    assert refused.json()["error"] == "unauthorized_client"


async def test_guessing_codes_is_throttled(browser: Browser, device: Client) -> None:
    for _ in range(20):
        assert (await browser.get("/oauth/device?user_code=AAAA-AAAA")).status_code == 404
    assert (await browser.get("/oauth/device?user_code=AAAA-AAAA")).status_code == 429


async def test_another_site_cannot_answer_for_the_person(browser: Browser, device: Client) -> None:
    begun = await begin(device)
    form = {"user_code": begun["user_code"], "decision": "allow"}
    forged = await browser.post("/oauth/device", form, headers={"Sec-Fetch-Site": "cross-site"})
    assert forged.status_code == 403


async def test_a_client_for_codes_needs_a_redirect_uri(house: House) -> None:
    refused = await house.http().post("/oauth/register", json={"redirect_uris": []})
    assert refused.json()["error"] == "invalid_redirect_uri"
