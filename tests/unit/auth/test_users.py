"""Users: the API, the page, and what deactivating somebody means."""

import pytest

from libs.common.records import AdminEvent
from libs.common.tokens import InvalidToken, standing
from tests.unit.auth.house import EMAIL, PASSWORD, SAME_ORIGIN, Browser, Client, House

ADA, ADAS_PASSWORD = "ada@example.com", "another long password"


async def api(browser: Browser, method: str, path: str, body: object = None) -> tuple[int, dict[str, object]]:
    answer = await browser.http.request(method, f"/api/auth{path}", json=body, headers=SAME_ORIGIN)
    found: dict[str, object] = answer.json()
    return answer.status_code, found


async def test_an_administrator_adds_somebody_who_can_then_sign_in(house: House, browser: Browser) -> None:
    status, ada = await api(browser, "POST", "/users", {"email": ADA, "name": "Ada"})
    assert (status, ada["role"], ada["active"]) == (200, "member", True)
    receipt = ada["receipt"]
    assert isinstance(receipt, dict)
    assert receipt["complete"] is True
    assert house.app.state.follower.tables.users[ada["id"]].email == ADA
    assert (await house.browser().sign_in(ADA, str(ada["password"]))).status_code == 303
    event = house.events(AdminEvent)[-1]
    assert (event.event, event.email, event.subject) == ("user_created", EMAIL, f"user.{ada['id']}")
    assert str(ada["password"]) not in event.after


async def test_an_email_is_somebodys_in_any_spelling(house: House, browser: Browser) -> None:
    await house.add_user(ADA)
    status, problem = await api(browser, "POST", "/users", {"email": "ADA@example.COM"})
    assert (status, problem["type"]) == (409, "urn:lockgate:error:email-taken")


@pytest.mark.parametrize(
    ("new", "kind"),
    [
        ({"email": "nobody"}, "bad-email"),
        ({"email": "two words@example.com"}, "bad-email"),
        ({"email": ADA, "password": "short"}, "weak-password"),
        ({"email": ADA, "password": "a" * 40}, "weak-password"),
        ({"email": ADA, "role": "king"}, "bad-request"),
        ({}, "bad-request"),
    ],
)
async def test_bad_input_gets_a_clear_error(browser: Browser, new: dict[str, str], kind: str) -> None:
    status, problem = await api(browser, "POST", "/users", new)
    assert (status, problem["type"]) == (400, f"urn:lockgate:error:{kind}")
    assert problem["detail"]


async def test_lists_are_paged_by_key(house: House, browser: Browser) -> None:
    for name in ("a", "b", "c"):
        await house.add_user(f"{name}@example.com")
    _, first = await api(browser, "GET", "/users?limit=3")
    _, second = await api(browser, "GET", f"/users?limit=3&after={first['next']}")
    emails = [user["email"] for page in (first, second) for user in page["items"]]  # type: ignore[attr-defined]
    assert emails == [EMAIL, "a@example.com", "b@example.com", "c@example.com"]
    assert second["next"] is None


async def test_only_administrators_manage_users(house: House) -> None:
    ada = await house.add_user(ADA)
    for role in ("member", "auditor"):
        house.parts.store.users.change(ada["id"], name=None, role=role, active=None)
        await house.parts.owner.publish(f"user.{ada['id']}")
        person = await house.signed_in(ADA, ADAS_PASSWORD)
        assert (await api(person, "GET", "/users"))[0] == 403
        assert (await api(person, "PATCH", f"/users/{ada['id']}", {"role": "admin"}))[0] == 403
        assert (await person.get("/users")).status_code == 403
    nobody = house.browser()
    assert (await api(nobody, "GET", "/users"))[0] == 401
    assert (await nobody.get("/users")).headers["location"] == "/login?next=%2Fusers"


async def test_a_deactivated_person_is_out_at_once(house: House, browser: Browser, client: Client) -> None:
    ada = await house.add_user(ADA)
    person = await house.signed_in(ADA, ADAS_PASSWORD)
    tokens = await client.connect(person)
    status, _ = await api(browser, "PATCH", f"/users/{ada['id']}", {"active": False})
    assert status == 200
    tables = house.app.state.follower.tables
    with pytest.raises(InvalidToken, match="user_inactive"):
        standing(tables, house.claims(tokens["access_token"]))
    assert (await person.get("/account")).status_code == 303
    assert (await house.browser().sign_in(ADA, ADAS_PASSWORD)).status_code == 401
    assert house.event("signed_in").reason == "inactive"
    assert (await client.refresh(tokens["refresh_token"])).json()["error"] == "invalid_grant"


async def test_activating_somebody_again_brings_no_old_token_back(
    house: House, browser: Browser, client: Client
) -> None:
    ada = await house.add_user(ADA)
    tokens = await client.connect(await house.signed_in(ADA, ADAS_PASSWORD))
    for active in (False, True):
        await api(browser, "PATCH", f"/users/{ada['id']}", {"active": active})
    with pytest.raises(InvalidToken, match="token_revoked"):
        standing(house.app.state.follower.tables, house.claims(tokens["access_token"]))
    assert (await client.refresh(tokens["refresh_token"])).json()["error"] == "invalid_grant"
    assert (await house.browser().sign_in(ADA, ADAS_PASSWORD)).status_code == 303


async def test_sign_out_everywhere_voids_what_was_issued_and_not_what_comes_next(
    house: House, browser: Browser, client: Client
) -> None:
    ada = await house.add_user(ADA)
    tables = house.app.state.follower.tables
    for _ in range(3):  # within one second or not, each time
        person = await house.signed_in(ADA, ADAS_PASSWORD)
        claims = house.claims((await client.connect(person))["access_token"])
        assert standing(tables, claims).id == ada["id"]
        assert (await api(browser, "POST", f"/users/{ada['id']}/sign-out-everywhere"))[0] == 200
        assert claims.issued_at < tables.users[ada["id"]].tokens_valid_from
        with pytest.raises(InvalidToken, match="token_revoked"):
            standing(tables, claims)
        assert (await person.get("/account")).status_code == 303


@pytest.mark.parametrize("change", [{"active": False}, {"role": "member"}])
async def test_the_last_administrator_stays(
    house: House, browser: Browser, change: dict[str, object]
) -> None:
    second = await house.add_user(ADA, "admin")
    me = str(house.parts.store.users.by_email(EMAIL)[0].id)  # type: ignore[index]
    assert (await api(browser, "PATCH", f"/users/{second['id']}", change))[0] == 200
    status, problem = await api(browser, "PATCH", f"/users/{me}", change)
    assert (status, problem["type"]) == (409, "urn:lockgate:error:last-administrator")
    assert (await browser.get("/users")).status_code == 200


async def test_unknown_users_are_not_found(browser: Browser) -> None:
    for method, path in (
        ("GET", "/users/nobody"),
        ("PATCH", "/users/nobody"),
        ("POST", "/users/nobody/sign-out-everywhere"),
    ):
        assert (await api(browser, method, path, {}))[0] == 404


async def test_a_changing_request_from_another_site_is_refused(browser: Browser) -> None:
    answer = await browser.http.post(
        "/api/auth/users", json={"email": ADA}, headers={"Sec-Fetch-Site": "cross-site"}
    )
    assert answer.status_code == 403


# -- the page ----------------------------------------------------------------------------------------


async def test_the_page_says_what_is_wrong(browser: Browser) -> None:
    page = await browser.post("/users", {"email": EMAIL})
    assert page.status_code == 409
    assert "is taken" in page.text


async def test_the_page_deactivates_and_activates(house: House, browser: Browser) -> None:
    ada = await house.add_user(ADA)
    answer = await browser.post(f"/users/{ada['id']}/active", {"active": "false"})
    assert answer.headers["location"] == f"/users/{ada['id']}"
    page = await browser.get(f"/users/{ada['id']}")
    assert "The account is deactivated, and everything of theirs has ended." in page.text
    assert "No gateway replica is running; each applies it before its first call." in page.text
    assert "deactivated" in (await browser.get("/users")).text
    await browser.post(f"/users/{ada['id']}/active", {"active": "true"})
    await browser.post(f"/users/{ada['id']}/role", {"role": "auditor"})
    user = house.parts.store.users.get(ada["id"])
    assert (user.active, user.role) == (True, "auditor")


async def test_the_page_keeps_the_last_administrator(house: House, browser: Browser) -> None:
    me = house.parts.store.users.by_email(EMAIL)[0].id  # type: ignore[index]
    page = await browser.post(f"/users/{me}/active", {"active": "false"})
    assert page.status_code == 409
    assert "last active administrator" in page.text


# -- the account page and grants ------------------------------------------------------------------------


async def test_the_account_page_lists_connected_clients_and_disconnects_them(
    house: House, browser: Browser, client: Client
) -> None:
    assert "No client acts for you yet" in (await browser.get("/account")).text
    tokens = await client.connect(browser)
    grant = house.claims(tokens["access_token"]).grant
    page = await browser.get("/account")
    assert "Test client" in page.text
    answer = await browser.post(f"/account/grants/{grant}/disconnect")
    assert answer.headers["location"] == "/account"
    with pytest.raises(InvalidToken, match="token_revoked"):
        standing(house.app.state.follower.tables, house.claims(tokens["access_token"]))
    page = await browser.get("/account")
    assert "Test client is disconnected: its next request will be refused." in page.text
    assert "No client acts for you yet" in page.text


async def test_grants_are_ones_own_or_an_administrators_business(
    house: House, browser: Browser, client: Client
) -> None:
    ada = await house.add_user(ADA)
    person = await house.signed_in(ADA, ADAS_PASSWORD)
    mine = house.claims((await client.connect(browser))["access_token"])
    hers = house.claims((await client.connect(person))["access_token"])
    assert [g["id"] for g in (await api(person, "GET", "/grants"))[1]["items"]] == [hers.grant]  # type: ignore[attr-defined]
    assert (await api(person, "GET", f"/grants?user={mine.subject}"))[0] == 403
    assert (await api(person, "DELETE", f"/grants/{mine.grant}"))[0] == 404
    assert (await person.post(f"/account/grants/{mine.grant}/disconnect")).status_code == 404
    listed = (await api(browser, "GET", f"/grants?user={ada['id']}"))[1]
    assert [g["id"] for g in listed["items"]] == [hers.grant]  # type: ignore[attr-defined]
    status, revoked = await api(browser, "DELETE", f"/grants/{hers.grant}")
    assert (status, revoked["id"]) == (200, hers.grant)
    assert hers.grant in house.app.state.follower.tables.revoked
    assert house.event("revoked").detail == f"by {EMAIL}"


async def test_a_new_password_ends_the_other_logins_and_keeps_this_one(house: House) -> None:
    here, there = await house.signed_in(), await house.signed_in()
    wrong = await here.post("/account/password", {"present": "wrong", "new": "a brand new password"})
    assert wrong.status_code == 403
    weak = await here.post("/account/password", {"present": PASSWORD, "new": "short"})
    assert weak.status_code == 400
    done = await here.post("/account/password", {"present": PASSWORD, "new": "a brand new password"})
    assert done.headers["location"] == "/account"
    assert (await here.get("/account")).status_code == 200
    assert (await there.get("/account")).status_code == 303
    assert (await house.browser().sign_in()).status_code == 401
    assert (await house.browser().sign_in(password="a brand new password")).status_code == 303


async def test_somebody_signs_themselves_out_everywhere(
    house: House, browser: Browser, client: Client
) -> None:
    tokens = await client.connect(browser)
    answer = await browser.post("/account/sign-out-everywhere")
    assert answer.headers["location"] == "/login?next=/account"
    assert (await client.refresh(tokens["refresh_token"])).json()["error"] == "invalid_grant"
    assert (await browser.get("/account")).status_code == 303
    assert (await house.browser().sign_in()).status_code == 303


async def test_a_password_manager_finds_out_whose_password_changes(house: House) -> None:
    """A text field with the name, which people do not see; browsers do not look at fields of type hidden."""
    page = await (await house.signed_in()).get("/account")
    form = page.text.partition('action="/account/password"')[2].partition("</form>")[0]
    field = f'<div hidden><input name="username" value="{EMAIL}" autocomplete="username"'
    assert field in form


async def test_only_wrong_passwords_count_against_who_changes_theirs(house: House) -> None:
    browser = await house.signed_in()
    weak, wrong = {"present": PASSWORD, "new": "short"}, {"present": "wrong", "new": "a brand new password"}
    assert {(await browser.post("/account/password", weak)).status_code for _ in range(9)} == {400}
    statuses = [(await browser.post("/account/password", wrong)).status_code for _ in range(9)]
    assert statuses == [403] * 8 + [429]
