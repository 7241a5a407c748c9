"""Introspection (RFC 7662): the organization's own services ask what a token is worth."""

from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest

from libs.common.records import AdminEvent
from tests.unit.auth.house import EMAIL, ORIGIN, SAME_ORIGIN, SERVER, Browser, Client, House

ADA, ADAS_PASSWORD = "ada@example.com", "another long password"


@pytest.fixture
async def service(browser: Browser) -> dict[str, str]:
    body = {"name": "Billing", "rights": ["introspect"]}
    answer = await browser.http.post("/api/auth/clients", json=body, headers=SAME_ORIGIN)
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    made: dict[str, str] = answer.json()
    return made


async def introspect(house: House, service: dict[str, str], token: str, **more: str) -> httpx2.Response:
    auth = (service["id"], service["secret"])
    return await house.http().post("/oauth/introspect", data={"token": token, **more}, auth=auth)


async def told(house: House, service: dict[str, str], token: str, **more: str) -> dict[str, Any]:
    answer = await introspect(house, service, token, **more)
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store"), answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_an_access_token_is_told_about(
    house: House, browser: Browser, client: Client, service: dict[str, str]
) -> None:
    token = (await client.connect(browser))["access_token"]
    claims = house.claims(token)
    found = await told(house, service, token)
    assert found.pop("jti")
    assert set(found.pop("scope").split()) == {"mcp", "offline_access"}
    assert found == {
        "active": True,
        "iss": ORIGIN,
        "sub": claims.subject,
        "username": EMAIL,
        "client_id": client.id,
        "aud": SERVER,
        "iat": claims.issued_at,
        "exp": claims.expires_at,
        "token_type": "Bearer",
    }


async def test_a_refresh_token_is_told_about_until_it_is_replaced(
    house: House, browser: Browser, client: Client, service: dict[str, str]
) -> None:
    token = (await client.connect(browser))["refresh_token"]
    found = await told(house, service, token, token_type_hint="refresh_token")
    assert (found["active"], found["client_id"], found["aud"]) == (True, client.id, SERVER)
    assert "token_type" not in found
    successor = (await client.refresh(token)).json()["refresh_token"]
    assert await told(house, service, token) == {"active": False}
    assert (await told(house, service, successor))["active"] is True


async def test_a_hint_that_is_wrong_or_unknown_does_no_harm(
    house: House, browser: Browser, client: Client, service: dict[str, str]
) -> None:
    token = (await client.connect(browser))["access_token"]
    for hint in ("refresh_token", "saml2"):
        assert (await told(house, service, token, token_type_hint=hint))["active"] is True


End = Callable[[House, Browser, dict[str, Any], str], Awaitable[None]]


async def disconnected(house: House, admin: Browser, ada: dict[str, Any], grant: str) -> None:
    await admin.http.delete(f"/api/auth/grants/{grant}", headers=SAME_ORIGIN)


async def signed_out(house: House, admin: Browser, ada: dict[str, Any], grant: str) -> None:
    await admin.post(f"/users/{ada['id']}/sign-out-everywhere")


async def deactivated(house: House, admin: Browser, ada: dict[str, Any], grant: str) -> None:
    await admin.post(f"/users/{ada['id']}/active", {"active": "false"})


async def deleted(house: House, admin: Browser, ada: dict[str, Any], grant: str) -> None:
    await admin.post(f"/users/{ada['id']}/delete")


@pytest.mark.parametrize("end", [disconnected, signed_out, deactivated, deleted])
async def test_a_token_that_has_ended_is_not_active(
    house: House, browser: Browser, client: Client, service: dict[str, str], end: End
) -> None:
    ada = await house.add_user(ADA)
    tokens = await client.connect(await house.signed_in(ADA, ADAS_PASSWORD))
    kinds = ("access_token", "refresh_token")
    assert [(await told(house, service, tokens[kind]))["active"] for kind in kinds] == [True, True]
    await end(house, browser, ada, house.claims(tokens["access_token"]).grant)
    for kind in kinds:
        assert await told(house, service, tokens[kind]) == {"active": False}


async def test_what_is_no_access_token_of_ours_is_not_active(
    house: House, browser: Browser, service: dict[str, str]
) -> None:
    console = browser.http.cookies["lockgate"]
    for token in ("nonsense", "a.b.c", console, console[:-4] + "AAAA"):
        assert await told(house, service, token) == {"active": False}


async def test_clients_of_anybodys_making_may_not_ask(
    house: House, browser: Browser, client: Client, service: dict[str, str]
) -> None:
    token = (await client.connect(browser))["access_token"]
    confidential = await house.client(token_endpoint_auth_method="client_secret_basic")
    http = house.http()
    for client_id, secret, status in (
        (confidential.id, confidential.secret, 403),
        (client.id, "", 401),
        (service["id"], "wrong", 401),
        ("nobody", "x", 401),
    ):
        answer = await http.post("/oauth/introspect", data={"token": token}, auth=(client_id, secret))
        assert answer.status_code == status, client_id
        assert "active" not in answer.json()
    by_id_alone = await http.post("/oauth/introspect", data={"token": token, "client_id": client.id})
    assert by_id_alone.status_code == 401
    by_member = await browser.http.post("/oauth/introspect", data={"token": token})
    assert by_member.status_code == 401


async def test_a_registered_client_cannot_give_itself_the_right(house: House) -> None:
    asked = await house.client(token_endpoint_auth_method="client_secret_basic", rights=["introspect"])
    stored = house.parts.store.clients.get(asked.id)
    assert stored
    assert stored.rights == ""


async def test_a_request_without_a_token_is_refused(house: House, service: dict[str, str]) -> None:
    answer = await introspect(house, service, "")
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")


async def test_a_service_gets_no_tokens_and_no_consent_page(
    house: House, browser: Browser, service: dict[str, str]
) -> None:
    client = Client(house.http(), service["id"], secret=service["secret"])
    assert (await browser.get(client.authorize_url())).status_code == 400
    for grant_type in ("client_credentials", "authorization_code", "refresh_token"):
        answer = await client.token(
            grant_type=grant_type, client_secret=client.secret, code="x", refresh_token="x"
        )
        assert answer.status_code == 400


# -- who makes services ------------------------------------------------------------------------------


async def test_administrators_list_and_delete_services(
    house: House, browser: Browser, client: Client, service: dict[str, str]
) -> None:
    listed = (await browser.http.get("/api/auth/clients")).json()["items"]
    assert [(c["id"], c["name"], c["rights"]) for c in listed] == [
        (service["id"], "Billing", ["introspect"])
    ], "registered clients are not among them"
    assert "secret" not in listed[0]
    path = f"/api/auth/clients/{service['id']}"
    assert (await browser.http.delete(path, headers=SAME_ORIGIN)).status_code == 204
    assert (await introspect(house, service, "x")).status_code == 401
    assert (await browser.http.delete(path, headers=SAME_ORIGIN)).status_code == 404
    dynamic = f"/api/auth/clients/{client.id}"
    assert (await browser.http.delete(dynamic, headers=SAME_ORIGIN)).status_code == 404
    names = [(e.event, e.subject) for e in house.events(AdminEvent)]
    assert names[-2:] == [(f"client_{what}", f"client.{service['id']}") for what in ("created", "deleted")]
    assert service["secret"] not in str(house.events(AdminEvent))


async def test_only_administrators_make_services(house: House) -> None:
    await house.add_user(ADA, "auditor")
    person = await house.signed_in(ADA, ADAS_PASSWORD)
    body = {"name": "Billing", "rights": ["introspect"]}
    assert (await person.http.post("/api/auth/clients", json=body, headers=SAME_ORIGIN)).status_code == 403
    assert (await person.http.get("/api/auth/clients")).status_code == 403


@pytest.mark.parametrize(
    "body", [{"name": "x"}, {"name": "x", "rights": []}, {"name": "x", "rights": ["everything"]}, {}]
)
async def test_a_service_without_a_known_right_is_refused(browser: Browser, body: dict[str, object]) -> None:
    answer = await browser.http.post("/api/auth/clients", json=body, headers=SAME_ORIGIN)
    assert answer.status_code == 400
