"""What acts for a person, clients and logins: on their own page, on an administrator's, and in the API."""

import re
from typing import Any

import pytest

from libs.common.records import AdminEvent
from libs.common.tokens import InvalidToken, standing
from services.auth.browsers import browser_of
from services.auth.domain import DEVICE_GRANT
from tests.unit.auth.house import EMAIL, SAME_ORIGIN, SERVER, Browser, Client, House

ADA, ADAS_PASSWORD = "ada@example.com", "another long password"
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


async def api(browser: Browser, method: str, path: str) -> tuple[int, dict[str, Any]]:
    answer = await browser.http.request(method, f"/api/auth{path}", headers=SAME_ORIGIN)
    found: dict[str, Any] = answer.json()
    return answer.status_code, found


async def sessions_of(browser: Browser, user: str = "") -> list[dict[str, Any]]:
    status, page = await api(browser, "GET", f"/sessions?user={user}")
    assert status == 200
    found: list[dict[str, Any]] = page["items"]
    return found


def text_of(page: str) -> str:
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


async def connect_device(house: House, browser: Browser) -> str:
    """A grant by device code; its id."""
    device = await house.client(client_name="Robot", grant_types=[DEVICE_GRANT, "refresh_token"])
    begun = (await device.http.post("/oauth/device_authorization", data={"client_id": device.id})).json()
    await browser.post("/oauth/device", {"user_code": begun["user_code"], "decision": "allow"})
    tokens = (await device.token(grant_type=DEVICE_GRANT, device_code=begun["device_code"])).json()
    return house.claims(tokens["access_token"], "http://127.0.0.1:8080/mcp").grant


# -- clients -----------------------------------------------------------------------------------------


async def test_the_account_page_says_what_each_client_is_and_may_reach(
    house: House, browser: Browser, client: Client
) -> None:
    await client.connect(browser)
    await connect_device(house, browser)
    site = await house.client(client_name="Web app", redirect_uris=["https://app.example/cb"])
    await site.exchange(
        await site.consent(browser, redirect_uri="https://app.example/cb", resource=None),
        redirect_uri="https://app.example/cb",
        resource=None,
    )
    page = text_of((await browser.get("/account")).text)
    assert "Test client at 127.0.0.1 May use demo ." in page
    assert "Robot at device code May use every server ." in page
    assert "Web app at app.example May use every server ." in page


async def test_a_client_with_a_document_is_shown_by_the_host_that_describes_it(
    house: House, browser: Browser, client: Client
) -> None:
    tokens = await client.connect(browser)
    grant = house.claims(tokens["access_token"]).grant
    with house.parts.store.database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE grants SET client_id = 'https://vouching.example/client.json'")
    assert "Test client at vouching.example" in text_of((await browser.get("/account")).text)
    listed = (await api(browser, "GET", "/grants"))[1]["items"]
    assert [(g["id"], g["document_host"], g["audience"]) for g in listed] == [
        (grant, "vouching.example", SERVER)
    ]


async def test_an_administrator_disconnects_somebodys_client_with_a_receipt(
    house: House, browser: Browser, client: Client
) -> None:
    ada = await house.add_user(ADA)
    tokens = await client.connect(await house.signed_in(ADA, ADAS_PASSWORD))
    claims = house.claims(tokens["access_token"])
    base = f"/users/{ada['id']}"
    assert "Test client" in (await browser.get(base)).text
    answer = await browser.post(f"{base}/grants/{claims.grant}/disconnect")
    assert answer.headers["location"] == base
    tables = house.app.state.follower.tables
    assert claims.grant in tables.revoked, "before the answer"
    with pytest.raises(InvalidToken, match="token_revoked"):
        standing(tables, claims)
    page = text_of((await browser.get(base)).text)
    assert "Test client is disconnected. No gateway replica is running" in page
    assert "No client acts for Ada." in page
    event = house.events(AdminEvent)[-1]
    assert (event.event, event.email, event.subject) == (
        "client_disconnected",
        EMAIL,
        f"revoked.{claims.grant}",
    )


async def test_a_grant_that_has_run_out_is_no_connected_client(
    house: House, browser: Browser, client: Client
) -> None:
    await client.connect(browser)
    house.age("refresh_tokens", "expires_at", 180 * 24 * 3600 + 1)
    house.age("grants", "last_used_at", 180 * 24 * 3600 + 1)
    house.parts.store.revocations.sweep()
    assert "No client acts for you yet" in (await browser.get("/account")).text


# -- logins ------------------------------------------------------------------------------------------


async def test_a_person_sees_their_logins_and_ends_one(house: House) -> None:
    here, there = house.browser(), house.browser("192.0.2.7")
    there.http.headers["User-Agent"] = FIREFOX
    for browser in (here, there):
        await browser.sign_in()
    page = text_of((await here.get("/account")).text)
    assert "Firefox on Linux At 192.0.2.7 since" in page
    assert len(re.findall(r"this one At (?:127|192)", page)) == 1
    (theirs,) = [s["id"] for s in await sessions_of(here) if s["address"] == "192.0.2.7"]
    answer = await here.post(f"/account/sessions/{theirs}/end")
    assert answer.headers["location"] == "/account"
    assert theirs in house.app.state.follower.tables.revoked, "before the answer"
    assert "That login has ended. No gateway replica is running" in text_of((await here.get("/account")).text)
    assert (await there.get("/account")).status_code == 303
    assert (await there.get("/login")).status_code == 200
    assert (await here.post(f"/account/sessions/{theirs}/end")).status_code == 404


async def test_logins_are_ones_own_or_an_administrators_business(house: House, browser: Browser) -> None:
    ada = await house.add_user(ADA)
    person = await house.signed_in(ADA, ADAS_PASSWORD)
    (hers,) = await sessions_of(person)
    mine = await sessions_of(browser)
    assert (await api(person, "GET", f"/sessions?user={mine[0]['user']}"))[0] == 403
    assert (await api(person, "DELETE", f"/sessions/{mine[0]['id']}"))[0] == 404
    assert (await person.post(f"/account/sessions/{mine[0]['id']}/end")).status_code == 404
    assert await sessions_of(browser, ada["id"]) == [hers]
    status, ended = await api(browser, "DELETE", f"/sessions/{hers['id']}")
    assert (status, ended["receipt"]["complete"]) == (200, True)
    assert (await person.get("/account")).status_code == 303
    assert house.event("signed_out").detail == f"by {EMAIL}"
    assert house.events(AdminEvent)[-1].event == "session_ended"


async def test_an_administrator_ends_a_login_on_the_page_of_its_user_only(
    house: House, browser: Browser
) -> None:
    ada = await house.add_user(ADA)
    person = await house.signed_in(ADA, ADAS_PASSWORD)
    (hers,) = await sessions_of(person)
    assert (await browser.post(f"/users/{hers['id']}/sessions/{hers['id']}/end")).status_code == 404
    assert (await person.get("/account")).status_code == 200
    await browser.post(f"/users/{ada['id']}/sessions/{hers['id']}/end")
    assert "The login has ended." in (await browser.get(f"/users/{ada['id']}")).text
    assert (await person.get("/account")).status_code == 303


async def test_signing_oneself_out_everywhere_through_the_api_answers_with_a_receipt(
    house: House, browser: Browser, client: Client
) -> None:
    tokens = await client.connect(browser)
    status, ended = await api(browser, "POST", "/sign-out-everywhere")
    assert (status, ended["receipt"]["complete"]) == (200, True)
    with pytest.raises(InvalidToken, match="token_revoked"):
        standing(house.app.state.follower.tables, house.claims(tokens["access_token"]))
    assert (await browser.get("/account")).status_code == 303
    assert house.event("signed_out_everywhere").email == EMAIL


async def test_who_signed_out_everywhere_is_told_where_that_holds(browser: Browser) -> None:
    answer = await browser.post("/account/sign-out-everywhere")
    page = text_of((await browser.get(answer.headers["location"])).text)
    assert "All your logins and connected clients have ended. No gateway replica is running" in page


@pytest.mark.parametrize(
    ("agent", "words"),
    [
        (FIREFOX, "Firefox on Linux"),
        (
            "Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537 Chrome/140.0 Safari/537 Edg/140.0",
            "Edge on Windows",
        ),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) Version/19 Safari/605", "Safari on iPhone"),
        ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) Chrome/140.0 Safari/537", "Chrome on macOS"),
        ("curl/8.1", "curl/8.1"),
        ("", "An unknown browser"),
    ],
)
def test_a_browser_is_named_in_words(agent: str, words: str) -> None:
    assert browser_of(agent) == words
