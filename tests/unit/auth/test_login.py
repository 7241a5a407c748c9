"""Signing in and out, and the attacks on it."""

from http.cookies import SimpleCookie
from unittest.mock import patch

import pytest
from argon2 import PasswordHasher, extract_parameters

from tests.unit.auth.house import EMAIL, PASSWORD, Browser, House

CONSOLE, LOGIN, DEVICE = "lockgate", "lockgate-login", "lockgate-device"


async def test_the_right_password_leads_on_and_sets_the_cookies(house: House) -> None:
    answer = await house.browser().sign_in(next="/account?done=x")
    assert (answer.status_code, answer.headers["location"]) == (303, "/account?done=x")
    cookies = [SimpleCookie(header) for header in answer.headers.get_list("set-cookie")]
    found = {name: morsel for cookie in cookies for name, morsel in cookie.items()}
    assert set(found) == {CONSOLE, LOGIN, DEVICE}
    for morsel in found.values():
        assert (morsel["httponly"], morsel["samesite"], morsel["path"]) == (True, "lax", "/")
    assert house.event("signed_in").email == EMAIL


async def test_the_console_cookie_admits_to_pages_and_the_login_cookie_alone_does_not(house: House) -> None:
    browser = await house.signed_in()
    assert (await browser.get("/account")).status_code == 200
    browser.http.cookies.delete(CONSOLE)
    away = await browser.get("/account")
    assert (away.status_code, away.headers["location"]) == (303, "/login?next=%2Faccount")
    back = await browser.get(away.headers["location"])
    assert (back.status_code, back.headers["location"]) == (303, "/account")
    assert (await browser.get("/account")).status_code == 200


@pytest.mark.parametrize(
    ("email", "password"), [(EMAIL, "wrong"), ("nobody@example.com", PASSWORD), ("", ""), (EMAIL, "x" * 4000)]
)
async def test_a_wrong_login_says_nothing_about_which_part_was_wrong(
    house: House, email: str, password: str
) -> None:
    answer = await house.browser().sign_in(email, password)
    assert answer.status_code == 401
    assert "The e-mail address or the password is not right." in answer.text
    assert "set-cookie" not in answer.headers
    event = house.event("signed_in")
    assert (event.outcome, event.reason, event.email) == ("refused", "wrong_password", email)


async def test_the_email_is_read_in_any_case(house: House) -> None:
    assert (await house.browser().sign_in("  ADMIN@Example.com ")).status_code == 303


async def test_an_unknown_account_costs_the_same_hash_as_a_known_one(house: House) -> None:
    with patch.object(PasswordHasher, "verify", autospec=True, side_effect=PasswordHasher.verify) as verify:
        for email in (EMAIL, "nobody@example.com"):
            await house.browser().sign_in(email, "wrong password")
    known, unknown = (extract_parameters(call.args[1]) for call in verify.call_args_list)
    assert known == unknown


@pytest.mark.parametrize(
    "target",
    ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:alert(1)", "evil", "/login?x"],
)
async def test_a_login_never_leads_elsewhere(house: House, target: str) -> None:
    browser = house.browser()
    assert (await browser.sign_in(next=target)).headers["location"] == "/"
    signed_in = await browser.http.get("/login", params={"next": target})
    assert signed_in.headers["location"] == "/"


async def test_forms_from_other_sites_are_refused_even_before_a_login(house: House) -> None:
    browser = house.browser()
    form = {"email": EMAIL, "password": PASSWORD}
    for headers in (
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Accept": "text/html"},
    ):
        answer = await browser.post("/login", form, headers)
        assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)
    assert (await browser.post("/login", form, {"Origin": house.settings.public_url})).status_code == 303


async def test_signing_in_again_makes_a_new_session_and_ends_the_old(house: House) -> None:
    browser = await house.signed_in()
    old = browser.http.cookies[LOGIN]
    await browser.sign_in()
    assert browser.http.cookies[LOGIN] != old
    thief = house.browser()
    thief.http.cookies.set(LOGIN, old)
    assert (await thief.get("/login?next=/account")).status_code == 200  # the form again


async def test_a_session_brought_along_is_not_taken_over(house: House) -> None:
    browser = house.browser()
    browser.http.cookies.set(LOGIN, "planted")
    answer = await browser.sign_in()
    assert "planted" not in str(answer.headers.get_list("set-cookie"))
    thief = house.browser()
    thief.http.cookies.set(LOGIN, "planted")
    assert (await thief.get("/login?next=/account")).status_code == 200


async def test_signing_out_holds_at_once_and_everywhere(house: House) -> None:
    browser = await house.signed_in()
    stolen = house.browser()
    for name in (CONSOLE, LOGIN):
        stolen.http.cookies.set(name, browser.http.cookies[name])
    assert (await stolen.get("/account")).status_code == 200
    answer = await browser.post("/logout", {"next": "/account"})
    assert answer.headers["location"] == "/login?next=%2Faccount"
    assert set(browser.http.cookies) == {DEVICE}  # which admits to nothing
    assert (await stolen.get("/account")).status_code == 303
    assert (await stolen.get("/login?next=/account")).status_code == 200
    assert house.event("signed_out").email == EMAIL


async def test_signing_out_takes_a_post_of_our_own(house: House) -> None:
    browser = await house.signed_in()
    assert (await browser.get("/logout")).status_code == 405
    assert (await browser.post("/logout", {}, {"Sec-Fetch-Site": "cross-site"})).status_code == 403
    assert (await browser.get("/account")).status_code == 200


async def test_a_login_ends_when_its_time_is_over(house: House) -> None:
    browser = await house.signed_in()
    house.age("sessions", "expires_at", house.settings.auth_session_lifetime)
    assert (await browser.get("/login?next=/account")).status_code == 200


async def test_pages_carry_their_protections(house: House) -> None:
    page = await Browser(house.http()).get("/login")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert page.headers["x-frame-options"] == "DENY"
    assert page.headers["cache-control"] == "no-store"
