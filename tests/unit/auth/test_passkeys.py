"""Passkeys: added, used as a second factor and instead of a password, and what proves nothing
(WebAuthn Level 3)."""

import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from services.auth.app import create_app
from services.auth.settings import AuthSettings
from tests.unit.auth.authenticator import Authenticator, b64, options_of
from tests.unit.auth.house import EMAIL, PASSWORD, Browser, House

ORIGIN = "http://localhost:8080"
ADA, ADAS_PASSWORD = "ada@example.com", "another long password"

Change = Callable[[Authenticator], object]


@pytest.fixture
def settings(settings: AuthSettings) -> AuthSettings:
    """As those of all tests, at a name: browsers have no passkeys for addresses."""
    return settings.model_copy(update={"public_url": ORIGIN})


async def begin_adding(browser: Browser, password: str = PASSWORD, name: str = "My phone") -> dict[str, Any]:
    """What the browser is asked for."""
    answer = await browser.post("/account/security/passkeys", {"proof": password, "name": name})
    assert answer.headers.get("location") == "/account/security/passkeys/new", answer.text
    return options_of(await browser.get("/account/security/passkeys/new"))


async def finish_adding(browser: Browser, credential: str) -> httpx2.Response:
    return await browser.post("/account/security/passkeys/new", {"credential": credential})


async def add(
    browser: Browser, authenticator: Authenticator, password: str = PASSWORD, name: str = "My phone"
) -> httpx2.Response:
    options = await begin_adding(browser, password, name)
    return await finish_adding(browser, authenticator.create(options))


async def by_passkey(
    browser: Browser, authenticator: Authenticator, next: str = "/activity", **changes: str
) -> httpx2.Response:
    options = options_of(await browser.get(f"/login/passkey?next={next}"))
    return await browser.post("/login/passkey", {"credential": authenticator.get(options, **changes)})


async def signed_in(browser: Browser) -> bool:
    return (await browser.get("/account")).status_code == 200


@pytest.fixture
async def ada(house: House) -> Browser:
    """Somebody else's browser, signed in."""
    await house.add_user(ADA, password=ADAS_PASSWORD)
    return await house.signed_in(ADA, ADAS_PASSWORD)


@pytest.fixture
async def phone(house: House, browser: Browser) -> Authenticator:
    """The administrator's passkey."""
    phone = Authenticator(ORIGIN)
    assert (await add(browser, phone)).status_code == 200
    return phone


# -- adding -----------------------------------------------------------------------------------------


async def test_what_the_browser_is_asked_for(browser: Browser) -> None:
    options = await begin_adding(browser)
    assert options["rp"] == {"id": "localhost", "name": "Lockgate"}
    assert options["user"]["name"] == EMAIL
    selection = options["authenticatorSelection"]
    assert (selection["residentKey"], selection["userVerification"]) == ("required", "required")
    assert options["attestation"] == "none"
    again = await begin_adding(browser)
    assert again["challenge"] != options["challenge"]


async def test_the_first_passkey_comes_with_recovery_codes(house: House, browser: Browser) -> None:
    first = await add(browser, Authenticator(ORIGIN), name="My phone")
    assert 'id="codes"' in first.text
    second = await add(browser, Authenticator(ORIGIN), name="<b>My key</b>")
    assert second.headers["location"] == "/account/security"
    page = (await browser.get("/account/security")).text
    assert "My phone" in page
    assert "&lt;b&gt;My key" in page
    assert [e.detail for e in house.events() if e.event == "passkey_added"] == ["My phone", "<b>My key</b>"]


async def test_adding_takes_the_password(browser: Browser) -> None:
    answer = await browser.post("/account/security/passkeys", {"proof": "something else", "name": "x"})
    assert answer.status_code == 403


async def test_a_passkey_that_is_there_is_not_offered_again(browser: Browser, phone: Authenticator) -> None:
    options = await begin_adding(browser)
    assert [known["id"] for known in options["excludeCredentials"]] == [b64(phone.id)]
    answer = await finish_adding(browser, phone.create(options))
    assert answer.status_code == 400
    assert "registered already" in answer.text


async def test_somebody_elses_passkey_cannot_be_taken_over(
    house: House, ada: Browser, phone: Authenticator
) -> None:
    imitation = Authenticator(ORIGIN, id=phone.id)
    assert (await add(ada, imitation, ADAS_PASSWORD)).status_code == 400
    assert (await by_passkey(house.browser(), phone)).status_code == 303


@pytest.mark.parametrize(
    "change",
    [
        {"origin": "https://evil.example"},
        {"origin": "http://localhost:8081"},
        {"host": "evil.example"},
        {"verifies": False},
    ],
)
async def test_a_new_passkey_that_is_not_for_here(browser: Browser, change: dict[str, Any]) -> None:
    answer = await add(browser, Authenticator(**{"origin": ORIGIN, **change}))
    assert answer.status_code == 400
    assert "not that of a new passkey" in answer.text


async def test_a_challenge_is_answered_once(browser: Browser) -> None:
    options = await begin_adding(browser)
    assert (await finish_adding(browser, Authenticator(ORIGIN).create(options))).status_code == 200
    again = await finish_adding(browser, Authenticator(ORIGIN).create(options))
    assert again.status_code == 404


async def test_an_answer_to_another_challenge_is_none(browser: Browser) -> None:
    old = await begin_adding(browser)
    await begin_adding(browser)
    assert (await finish_adding(browser, Authenticator(ORIGIN).create(old))).status_code == 400


@pytest.mark.parametrize(
    "credential",
    ["", "{}", "[]", "null", "7", '{"id": "AA", "rawId": "AA", "type": "public-key", "response": {}}'],
)
async def test_nonsense_is_refused_in_words(house: House, browser: Browser, credential: str) -> None:
    await begin_adding(browser)
    assert (await finish_adding(browser, credential)).status_code == 400
    stranger = house.browser()
    await stranger.get("/login/passkey")
    assert (await stranger.post("/login/passkey", {"credential": credential})).status_code == 403


async def test_broken_answers_are_refused_in_words(browser: Browser) -> None:
    for broken in (b"", b"\xff" * 40, b"\xa3cfmtdnonegattStmt\xa0hauthDataB\x00\x00"):
        credential = json.loads(Authenticator(ORIGIN).create(await begin_adding(browser)))
        credential["response"]["attestationObject"] = b64(broken)
        assert (await finish_adding(browser, json.dumps(credential))).status_code == 400


# -- instead of a password --------------------------------------------------------------------------


async def test_a_passkey_signs_in_without_a_password(house: House, phone: Authenticator) -> None:
    browser = house.browser()
    options = options_of(await browser.get("/login/passkey"))
    assert options["userVerification"] == "required"
    assert not options.get("allowCredentials")
    answer = await by_passkey(browser, phone)
    assert (answer.status_code, answer.headers["location"]) == (303, "/activity")
    assert await signed_in(browser)
    event = house.event("signed_in")
    assert (event.email, event.detail) == (EMAIL, "passkey")


@pytest.mark.parametrize(
    "change",
    [
        lambda phone: setattr(phone, "origin", "https://evil.example"),
        lambda phone: setattr(phone, "host", "evil.example"),
        lambda phone: setattr(phone, "verifies", False),
        lambda phone: setattr(phone, "id", b"of nobody"),
        lambda phone: setattr(phone, "key", Authenticator(ORIGIN).key),
        lambda phone: setattr(phone, "user", b64(b"somebody else")),
        lambda phone: setattr(phone, "user", ""),
    ],
)
async def test_what_proves_nothing(house: House, phone: Authenticator, change: Change) -> None:
    change(phone)
    browser = house.browser()
    assert (await by_passkey(browser, phone)).status_code == 403
    assert not await signed_in(browser)
    assert house.event("signed_in").reason == "wrong_passkey"


async def test_an_answer_counts_once_and_in_the_browser_that_asked(
    house: House, phone: Authenticator
) -> None:
    browser, other = house.browser(), house.browser()
    await other.get("/login/passkey")
    credential = {"credential": phone.get(options_of(await browser.get("/login/passkey")))}
    assert (await other.post("/login/passkey", credential)).status_code == 403
    assert (await browser.post("/login/passkey", credential)).status_code == 303
    answer = await browser.post("/login/passkey", credential)
    assert answer.headers["location"] == "/login"


async def test_a_copy_of_a_passkey_is_noticed_by_its_counter(house: House, phone: Authenticator) -> None:
    """Section 6.1.1."""
    phone.count = 10
    assert (await by_passkey(house.browser(), phone)).status_code == 303
    phone.count = 5
    assert (await by_passkey(house.browser(), phone)).status_code == 403
    phone.count = 11
    assert (await by_passkey(house.browser(), phone)).status_code == 303


async def test_another_site_cannot_sign_a_browser_in(house: House, phone: Authenticator) -> None:
    browser = house.browser()
    credential = {"credential": phone.get(options_of(await browser.get("/login/passkey")))}
    answer = await browser.post("/login/passkey", credential, {"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403
    assert not await signed_in(browser)


async def test_a_passkey_of_somebody_deactivated_lets_nobody_in(house: House, browser: Browser) -> None:
    user = await house.add_user(ADA, password=ADAS_PASSWORD)
    key = Authenticator(ORIGIN)
    await add(await house.signed_in(ADA, ADAS_PASSWORD), key, ADAS_PASSWORD)
    await browser.post(f"/users/{user['id']}/active", {"active": "false"})
    entering = house.browser()
    assert (await by_passkey(entering, key)).headers["location"] == "/login"
    assert not await signed_in(entering)
    assert house.event("signed_in").reason == "inactive"


# -- after a password -------------------------------------------------------------------------------


async def test_after_the_password_the_passkey_is_asked_for(house: House, phone: Authenticator) -> None:
    browser = house.browser()
    assert (await browser.sign_in(next="/activity")).headers["location"] == "/login/second-factor"
    options = options_of(await browser.get("/login/second-factor"))
    assert [known["id"] for known in options["allowCredentials"]] == [b64(phone.id)]
    answer = await browser.post("/login/second-factor", {"credential": phone.get(options, user="")})
    assert (answer.status_code, answer.headers["location"]) == (303, "/activity")
    assert house.event("signed_in").detail == "password and passkey"


async def test_somebody_elses_passkey_is_no_second_factor(
    house: House, ada: Browser, phone: Authenticator
) -> None:
    key = Authenticator(ORIGIN)
    await add(ada, key, ADAS_PASSWORD)
    browser = house.browser()
    await browser.sign_in()
    options = options_of(await browser.get("/login/second-factor"))
    answer = await browser.post("/login/second-factor", {"credential": key.get(options)})
    assert answer.status_code == 400
    assert not await signed_in(browser)
    assert house.event("second_factor_failed").reason == "wrong_passkey"


# -- removing ---------------------------------------------------------------------------------------


async def test_a_removed_passkey_lets_nobody_in(house: House, browser: Browser, phone: Authenticator) -> None:
    place = f"/account/security/passkeys/{b64(phone.id)}/remove"
    assert (await browser.post(place, {"proof": "something else"})).status_code == 403
    assert (await browser.post(place, {"proof": PASSWORD})).status_code == 303
    assert house.event("passkey_removed").detail == "My phone"
    assert (await by_passkey(house.browser(), phone)).status_code == 403
    assert (await house.browser().sign_in()).headers["location"] == "/account"


async def test_nobody_removes_somebody_elses(house: House, ada: Browser, phone: Authenticator) -> None:
    answer = await ada.post(f"/account/security/passkeys/{b64(phone.id)}/remove", {"proof": ADAS_PASSWORD})
    assert answer.status_code == 404
    assert (await by_passkey(house.browser(), phone)).status_code == 303


# -- where there are none ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "possible"),
    [
        ("https://gate.example.com", True),
        ("http://localhost:8080", True),
        ("http://gate.example.com", False),
        ("http://127.0.0.1:8080", False),
        ("https://10.0.0.1", False),
        ("https://[::1]", False),
    ],
)
def test_where_browsers_have_passkeys(settings: AuthSettings, url: str, possible: bool) -> None:
    app = create_app(settings.model_copy(update={"public_url": url}))
    assert app.state.parts.passkeys.possible is possible


async def test_where_they_cannot_be_the_pages_say_so(settings: AuthSettings) -> None:
    app = create_app(settings.model_copy(update={"public_url": "http://127.0.0.1:8080"}))
    house = House(app, app.state.parts.settings)
    async with app.router.lifespan_context(app):
        assert "passkey" not in (await house.browser().get("/login")).text
        assert (await house.browser().get("/login/passkey")).status_code == 404
        browser = await house.signed_in()
        assert "Passkeys work only where" in (await browser.get("/account/security")).text
        await house.close()
