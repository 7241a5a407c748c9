"""Invitations, password resets, the end of an account: what administrators begin, and people finish."""

import re
from typing import Any

import httpx2
import pytest

from libs.common.records import AdminEvent
from libs.common.tokens import InvalidToken, standing
from services.auth.app import create_app
from services.auth.settings import AuthSettings
from tests.unit.auth.house import EMAIL, ORIGIN, PASSWORD, SAME_ORIGIN, Browser, Client, House

ADA, ADAS_PASSWORD = "ada@example.com", "another long password"
NEW_PASSWORD = "a brand new password"
DAY = 24 * 3600


async def api(browser: Browser, method: str, path: str, body: object = None) -> tuple[int, dict[str, Any]]:
    answer = await browser.http.request(method, f"/api/auth{path}", json=body, headers=SAME_ORIGIN)
    found: dict[str, Any] = answer.json()
    return answer.status_code, found


async def invite(browser: Browser, email: str = ADA, role: str = "member") -> dict[str, Any]:
    status, offered = await api(
        browser, "POST", "/invitations", {"email": email, "name": "Ada", "role": role}
    )
    assert status == 200, offered
    return offered


async def offer_reset(browser: Browser, user: str) -> dict[str, Any]:
    status, offered = await api(browser, "POST", f"/users/{user}/password-reset")
    assert status == 200, offered
    return offered


async def follow(house: House, link: str, password: str = NEW_PASSWORD) -> httpx2.Response:
    """What somebody gets who opens `link` in their browser and sets a password."""
    return await house.browser().post(link, {"password": password})


def me(house: House) -> str:
    found = house.parts.store.users.by_email(EMAIL)
    assert found
    return found[0].id


# -- invitations -------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["member", "auditor", "admin"])
async def test_an_invited_person_chooses_a_password_and_is_signed_in(
    house: House, browser: Browser, role: str
) -> None:
    offered = await invite(browser, role=role)
    assert offered["url"].startswith(f"{ORIGIN}/login/invitation/")
    assert offered["receipt"]["complete"] is True
    assert offered["user"]["joined_at"] is None
    person = house.browser()
    page = await person.get(offered["url"])
    assert ADA in page.text
    answer = await person.post(offered["url"], {"password": NEW_PASSWORD})
    assert (answer.status_code, answer.headers["location"]) == (303, "/account")
    assert ADA in (await person.get("/account")).text
    assert (await house.browser().sign_in(ADA, NEW_PASSWORD)).status_code == 303
    _, ada = await api(browser, "GET", f"/users/{offered['user']['id']}")
    assert ada["joined_at"]
    assert ada["role"] == house.app.state.follower.tables.users[ada["id"]].role == role
    assert house.event("joined").email == ADA


async def test_nobody_signs_in_to_an_account_that_waits_for_its_owner(house: House, browser: Browser) -> None:
    await invite(browser)
    for password in ("", NEW_PASSWORD):
        assert (await house.browser().sign_in(ADA, password)).status_code == 401


async def test_an_invitation_works_once(house: House, browser: Browser) -> None:
    link = (await invite(browser))["url"]
    assert (await follow(house, link)).status_code == 303
    again = await follow(house, link, "a password of somebody else")
    assert again.status_code == 404
    assert (await house.browser().sign_in(ADA, NEW_PASSWORD)).status_code == 303


async def test_looking_at_an_invitation_or_a_weak_password_does_not_use_it_up(
    house: House, browser: Browser
) -> None:
    link = (await invite(browser))["url"]
    for _ in range(3):
        assert (await house.browser().get(link)).status_code == 200
    weak = await follow(house, link, "short")
    assert weak.status_code == 400
    assert "at least 12 characters" in weak.text
    assert (await follow(house, link)).status_code == 303


async def test_an_invitation_is_good_for_a_week(house: House, browser: Browser) -> None:
    link = (await invite(browser))["url"]
    house.age("links", "expires_at", 7 * DAY - 5)
    assert (await house.browser().get(link)).status_code == 200
    house.age("links", "expires_at", 5)
    assert (await follow(house, link)).status_code == 404


async def test_a_second_invitation_voids_the_first(house: House, browser: Browser) -> None:
    first = await invite(browser)
    status, second = await api(browser, "POST", f"/users/{first['user']['id']}/invitation")
    assert status == 200
    assert (await follow(house, first["url"])).status_code == 404
    assert (await follow(house, second["url"])).status_code == 303
    assert (await api(browser, "POST", f"/users/{first['user']['id']}/invitation"))[1]["type"].endswith(
        ":already-joined"
    )


async def test_an_invitation_ends_with_the_account(house: House, browser: Browser) -> None:
    offered = await invite(browser)
    await api(browser, "PATCH", f"/users/{offered['user']['id']}", {"active": False})
    assert (await follow(house, offered["url"])).status_code == 404
    status, problem = await api(browser, "POST", f"/users/{offered['user']['id']}/invitation")
    assert (status, problem["type"]) == (409, "urn:lockgate:error:deactivated")


async def test_an_invitation_cannot_be_accepted_from_another_site(house: House, browser: Browser) -> None:
    link = (await invite(browser))["url"]
    answer = await house.browser().post(link, {"password": NEW_PASSWORD}, {"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403
    assert (await follow(house, link)).status_code == 303


async def test_who_accepts_in_a_browser_of_somebody_else_ends_that_login(
    house: House, browser: Browser
) -> None:
    link = (await invite(browser))["url"]
    stolen = house.browser()
    stolen.http.cookies.update(browser.http.cookies)
    await browser.post(link, {"password": NEW_PASSWORD})
    assert ADA in (await browser.get("/account")).text
    assert (await stolen.get("/account")).status_code == 303


async def test_links_are_stored_and_recorded_without_their_secret(house: House, browser: Browser) -> None:
    offered = await invite(browser)
    secret = offered["url"].rpartition("/")[2]
    assert len(secret) >= 43
    event = house.events(AdminEvent)[-1]
    assert (event.event, event.subject) == ("user_invited", f"user.{offered['user']['id']}")
    for record in (*house.events(AdminEvent), *house.events()):
        assert secret not in str(record)
    house.parts.store.database.close()
    stored = b"".join(path.read_bytes() for path in house.settings.data_dir.glob("auth.db*"))
    house.parts.store.database.open()
    assert secret.encode() not in stored


async def test_inviting_somebody_twice_or_nobody_is_a_clear_error(house: House, browser: Browser) -> None:
    await invite(browser)
    assert (await api(browser, "POST", "/invitations", {"email": ADA.upper()}))[0] == 409
    assert (await api(browser, "POST", "/invitations", {"email": "nobody"}))[1]["type"].endswith("bad-email")


# -- password resets ---------------------------------------------------------------------------------


async def test_a_reset_sets_a_new_password_and_ends_everything(
    house: House, browser: Browser, client: Client
) -> None:
    ada = await house.add_user(ADA)
    person = await house.signed_in(ADA, ADAS_PASSWORD)
    tokens = await client.connect(person)
    offered = await offer_reset(browser, ada["id"])
    assert (await person.get("/account")).status_code == 200, "the offer alone changes nothing"
    fresh = house.browser()
    answer = await fresh.post(offered["url"], {"password": NEW_PASSWORD})
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=/account&again=true")
    page = await fresh.get(answer.headers["location"])
    assert "Your new password is set." in page.text
    assert "No gateway replica is running" in page.text, "the receipt"
    with pytest.raises(InvalidToken, match="token_revoked"):
        standing(house.app.state.follower.tables, house.claims(tokens["access_token"]))
    assert (await client.refresh(tokens["refresh_token"])).json()["error"] == "invalid_grant"
    assert (await person.get("/account")).status_code == 303
    assert (await house.browser().sign_in(ADA, ADAS_PASSWORD)).status_code == 401
    assert (await house.browser().sign_in(ADA, NEW_PASSWORD)).status_code == 303
    assert house.event("password_reset").email == ADA
    assert "password_reset_offered" in [event.event for event in house.events(AdminEvent)]


async def test_a_reset_signs_nobody_in_by_itself(house: House, browser: Browser) -> None:
    """Whatever else signing in takes, a second factor, is still asked for."""
    ada = await house.add_user(ADA)
    fresh = house.browser()
    await fresh.post((await offer_reset(browser, ada["id"]))["url"], {"password": NEW_PASSWORD})
    assert (await fresh.get("/account")).status_code == 303


async def test_a_reset_works_once_for_a_day(house: House, browser: Browser) -> None:
    ada = await house.add_user(ADA)
    used = (await offer_reset(browser, ada["id"]))["url"]
    assert (await follow(house, used)).status_code == 303
    assert (await follow(house, used, "yet another password")).status_code == 404
    late = (await offer_reset(browser, ada["id"]))["url"]
    house.age("links", "expires_at", DAY)
    assert (await follow(house, late)).status_code == 404


@pytest.mark.parametrize("ending", ["password", "sign_out", "deactivate", "another_link"])
async def test_an_unused_reset_link_ends(house: House, browser: Browser, ending: str) -> None:
    ada = await house.add_user(ADA)
    link = (await offer_reset(browser, ada["id"]))["url"]
    if ending == "password":
        person = await house.signed_in(ADA, ADAS_PASSWORD)
        changed = await person.post("/account/password", {"present": ADAS_PASSWORD, "new": NEW_PASSWORD})
        assert changed.status_code == 303
    elif ending == "sign_out":
        await api(browser, "POST", f"/users/{ada['id']}/sign-out-everywhere")
    elif ending == "deactivate":
        for active in (False, True):
            await api(browser, "PATCH", f"/users/{ada['id']}", {"active": active})
    else:
        await offer_reset(browser, ada["id"])
    assert (await follow(house, link)).status_code == 404


async def test_a_link_of_one_kind_is_no_link_of_the_other(house: House, browser: Browser) -> None:
    offered, ada = await invite(browser, "eve@example.com"), await house.add_user(ADA)
    reset = (await offer_reset(browser, ada["id"]))["url"]
    assert (await follow(house, reset.replace("/reset/", "/invitation/"))).status_code == 404
    assert (await follow(house, offered["url"].replace("/invitation/", "/reset/"))).status_code == 404


async def test_who_has_not_joined_gets_an_invitation_and_no_reset(browser: Browser) -> None:
    offered = await invite(browser)
    status, problem = await api(browser, "POST", f"/users/{offered['user']['id']}/password-reset")
    assert (status, problem["type"]) == (409, "urn:lockgate:error:not-joined")


async def test_a_link_is_no_way_around_the_organizations_provider(settings: AuthSettings) -> None:
    """Where passwords are switched off for all but the administrator of the settings, who is not Ada."""
    provider = {
        "auth_oidc_issuer": "https://idp.example",
        "auth_oidc_client_id": "lockgate",
        "auth_oidc_allowed_domains": "example.com",
        "auth_password_login": "administrator",
    }
    app = create_app(AuthSettings(**{**settings.model_dump(), **provider}))
    async with app.router.lifespan_context(app):
        house = House(app, app.state.parts.settings)
        browser = await house.signed_in()
        ada, link = await house.add_user(ADA), (await invite(browser, "bob@example.com"))["url"]
        reset = (await offer_reset(browser, ada["id"]))["url"]
        for url in (link, reset):
            assert "You need no password here" in (await house.browser().get(url)).text
            answer = await follow(house, url)
            assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)
        await house.close()


# -- the end of an account ---------------------------------------------------------------------------


async def test_deleting_somebody_ends_everything_and_takes_them_out_of_the_control_log(
    house: House, browser: Browser, client: Client
) -> None:
    ada = await house.add_user(ADA)
    person = await house.signed_in(ADA, ADAS_PASSWORD)
    tokens = await client.connect(person)
    await client.consent(person)
    await offer_reset(browser, ada["id"])
    status, deleted = await api(browser, "DELETE", f"/users/{ada['id']}")
    assert (status, deleted["id"], deleted["receipt"]["complete"]) == (200, ada["id"], True)
    tables = house.app.state.follower.tables
    assert ada["id"] not in tables.users
    claims = house.claims(tokens["access_token"])
    assert claims.grant in tables.revoked
    with pytest.raises(InvalidToken, match="user_unknown"):
        standing(tables, claims)
    assert (await client.refresh(tokens["refresh_token"])).json()["error"] == "invalid_grant"
    assert (await person.get("/account")).status_code == 303
    assert (await house.browser().sign_in(ADA, ADAS_PASSWORD)).status_code == 401
    assert (await api(browser, "GET", f"/users/{ada['id']}"))[0] == 404
    assert await house.parts.owner.reconcile() == 0, "nothing of them comes back"
    event = house.events(AdminEvent)[-1]
    assert (event.event, event.after) == ("user_deleted", "")
    assert (await invite(browser))["user"]["id"] != ada["id"], "the address is free again"


@pytest.mark.parametrize("end", ["demote", "deactivate", "delete"])
async def test_an_administrator_who_has_not_joined_does_not_keep_the_door(
    house: House, browser: Browser, end: str
) -> None:
    offered = await invite(browser, role="admin")
    calls = {
        "demote": ("PATCH", {"role": "member"}),
        "deactivate": ("PATCH", {"active": False}),
        "delete": ("DELETE", None),
    }
    method, body = calls[end]
    status, problem = await api(browser, method, f"/users/{me(house)}", body)
    assert (status, problem["type"]) == (409, "urn:lockgate:error:last-administrator")
    assert (await browser.get("/users")).status_code == 200
    assert (await follow(house, offered["url"])).status_code == 303
    assert (await api(browser, method, f"/users/{me(house)}", body))[0] == 200
    assert (await browser.get("/users")).status_code in {303, 403}


async def test_people_are_for_administrators_to_invite_reset_and_delete(
    house: House, browser: Browser
) -> None:
    ada = await house.add_user(ADA, "auditor")
    person = await house.signed_in(ADA, ADAS_PASSWORD)
    for method, path, body in (
        ("POST", "/invitations", {"email": "eve@example.com"}),
        ("POST", f"/users/{ada['id']}/invitation", None),
        ("POST", f"/users/{ada['id']}/password-reset", None),
        ("DELETE", f"/users/{ada['id']}", None),
    ):
        assert (await api(person, method, path, body))[0] == 403
    for path in ("", "/active", "/role", "/invitation", "/password-reset", "/sign-out-everywhere", "/delete"):
        form = {"active": "true", "role": "admin"}
        assert (await person.post(f"/users/{ada['id']}{path}", form)).status_code in {403, 405}
    assert (await person.get(f"/users/{ada['id']}")).status_code == 403


# -- the pages ---------------------------------------------------------------------------------------


def link_on(page: str) -> str:
    found = re.search(r'<pre id="link">([^<]+)</pre>', page)
    assert found, page
    return found[1]


async def test_the_page_invites_and_shows_the_link_once(house: House, browser: Browser) -> None:
    page = await browser.post("/users", {"email": ADA, "name": "Ada Lovelace", "role": "auditor"})
    assert page.headers["cache-control"] == "no-store"
    link = link_on(page.text)
    listed = (await browser.get("/users")).text
    assert "Ada Lovelace" in listed
    assert ">invited<" in listed
    assert link not in listed
    assert (await follow(house, link)).status_code == 303
    assert ">invited<" not in (await browser.get("/users")).text


async def test_the_page_of_a_user_offers_what_there_is_to_do(house: House, browser: Browser) -> None:
    ada = (await invite(browser))["user"]
    base = f"/users/{ada['id']}"
    again = await browser.post(f"{base}/invitation")
    assert (await follow(house, link_on(again.text))).status_code == 303
    reset = await browser.post(f"{base}/password-reset")
    assert (await follow(house, link_on(reset.text), "yet another password")).status_code == 303
    conflict = await browser.post(f"{base}/invitation")
    assert (conflict.status_code, "has joined already" in conflict.text) == (409, True)
    out = await browser.post(f"{base}/sign-out-everywhere")
    assert out.headers["location"] == base
    assert "All their logins and connected clients have ended." in (await browser.get(base)).text
    gone = await browser.post(f"{base}/delete")
    assert gone.headers["location"] == "/users"
    assert f"{ADA} is deleted." in (await browser.get("/users")).text
    assert (await browser.get(base)).status_code == 404


async def test_the_page_keeps_the_last_administrator_from_deleting_themselves(
    house: House, browser: Browser
) -> None:
    page = await browser.post(f"/users/{me(house)}/delete")
    assert page.status_code == 409
    assert "last active administrator" in page.text
    assert (await house.browser().sign_in(EMAIL, PASSWORD)).status_code == 303
