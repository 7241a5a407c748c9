"""Authenticator apps and recovery codes: set up, asked for after the password, and what does not get past."""

import html
import re
import sqlite3
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pyotp
import pytest
from cryptography.exceptions import InvalidTag

from libs.common.records import AdminEvent
from services.auth.app import create_app
from services.auth.second_factor import totp
from services.auth.settings import AuthSettings
from tests.unit.auth.house import EMAIL, PASSWORD, SAME_ORIGIN, Browser, House

ADA, ADAS_PASSWORD = "ada@example.com", "another long password"


NOW = int(time.time())


@pytest.fixture(autouse=True)
def one_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test runs into the next time step."""
    monkeypatch.setattr("services.auth.second_factor.factors.unix_now", lambda: NOW)


class App:
    """An authenticator app; `next` shows each code once, so that no test has to wait for another."""

    def __init__(self, page: httpx2.Response) -> None:
        found = re.search(r'id="secret">([A-Z2-7 ]+)<', page.text)
        assert found, page.text
        self._totp, self._ahead = pyotp.TOTP(found[1].replace(" ", "")), -1

    def code(self, steps: int = 0) -> str:
        return str(self._totp.generate_otp(NOW // totp.STEP + steps))

    def next(self) -> str:
        """Codes of the past step, of this one and of the coming one: three that are accepted now."""
        self._ahead += 1
        return self.code(self._ahead - 1)


def codes_of(page: httpx2.Response) -> list[str]:
    found = re.search(r'<pre id="codes">([^<]+)</pre>', page.text)
    assert found, page.text
    return html.unescape(found[1]).split()


async def set_up(browser: Browser, password: str = PASSWORD) -> tuple[App, list[str]]:
    """Set up an app for who is signed in; with the recovery codes."""
    began = await browser.post("/account/security/app", {"proof": password})
    assert (began.status_code, began.headers["location"]) == (303, "/account/security/app"), began.text
    app = App(await browser.get("/account/security/app"))
    done = await browser.post("/account/security/app/confirm", {"code": app.next()})
    assert done.status_code == 200, done.text
    return app, codes_of(done)


async def signed_in(browser: Browser) -> bool:
    return (await browser.get("/account")).status_code == 200


async def asked(house: House, email: str = EMAIL, password: str = PASSWORD) -> Browser:
    """A browser in which the password was given and the second factor is asked for."""
    browser = house.browser()
    answer = await browser.sign_in(email, password, next="/activity")
    assert (answer.status_code, answer.headers["location"]) == (303, "/login/second-factor"), answer.text
    return browser


@pytest.fixture
async def ada(house: House) -> dict[str, Any]:
    return await house.add_user(ADA, password=ADAS_PASSWORD)


# -- setting up -------------------------------------------------------------------------------------


async def test_an_app_counts_from_its_first_right_code_on(house: House, browser: Browser) -> None:
    await browser.post("/account/security/app", {"proof": PASSWORD})
    page = await browser.get("/account/security/app")
    assert "<svg" in page.text
    assert "style=" not in page.text.partition("<svg")[2].partition("</svg>")[0]
    assert (await browser.post("/account/security/app/confirm", {"code": "000000"})).status_code == 403
    assert (await house.browser().sign_in()).headers["location"] == "/account"
    answer = await browser.post("/account/security/app/confirm", {"code": App(page).code()})
    assert len(set(codes_of(answer))) == 10
    assert house.event("second_factor_added").detail == "authenticator app"
    await asked(house)


async def test_setting_up_takes_the_password(house: House, browser: Browser) -> None:
    answer = await browser.post("/account/security/app", {"proof": "not the password"})
    assert answer.status_code == 403
    assert house.event("second_factor_failed").reason == "wrong_password"
    assert (await browser.get("/account/security/app")).headers["location"] == "/account/security"


async def test_a_set_up_begun_by_one_person_is_not_finished_by_another(
    house: House, browser: Browser, ada: dict[str, Any]
) -> None:
    await browser.post("/account/security/app", {"proof": PASSWORD})
    app = App(await browser.get("/account/security/app"))
    await browser.sign_in(ADA, ADAS_PASSWORD)
    answer = await browser.post("/account/security/app/confirm", {"code": app.code()})
    assert answer.status_code == 303
    assert not (await house.parts.second_factors.of(ada["id"])).any


async def test_neither_secret_nor_codes_are_stored_as_they_are(house: House, browser: Browser) -> None:
    app, codes = await set_up(browser)
    path = house.settings.database_url.removeprefix("sqlite:///")
    with sqlite3.connect(path) as database:
        stored = "\n".join(database.iterdump())
    assert app._totp.secret not in stored
    assert not any(code in stored or code.replace("-", "") in stored for code in codes)
    assert not any(code in line for code in codes for line in map(repr, house.events()))


async def test_a_sealed_secret_opens_for_its_user_alone(house: House) -> None:
    sealed = house.parts.sealing.seal("secret", "ada")
    assert house.parts.sealing.open(sealed, "ada") == "secret"
    with pytest.raises(InvalidTag):
        house.parts.sealing.open(sealed, "grace")


# -- signing in -------------------------------------------------------------------------------------


async def test_after_the_password_nobody_is_signed_in_yet(house: House, browser: Browser) -> None:
    await set_up(browser)
    half = await asked(house)
    assert not await signed_in(half)
    assert (await half.get("/oauth/device")).status_code == 303
    assert not any(name.rpartition("-")[2] == "login" for name in half.http.cookies)


async def test_the_right_code_signs_in_and_leads_on(house: House, browser: Browser) -> None:
    app, _ = await set_up(browser)
    half = await asked(house)
    answer = await half.post("/login/second-factor", {"code": app.next()})
    assert (answer.status_code, answer.headers["location"]) == (303, "/activity")
    assert await signed_in(half)
    assert house.event("signed_in").detail == "password and authenticator code"


async def test_a_code_counts_once(house: House, browser: Browser) -> None:
    """RFC 6238, section 5.2."""
    app, _ = await set_up(browser)
    code = app.next()
    assert (await (await asked(house)).post("/login/second-factor", {"code": code})).status_code == 303
    onlooker = await asked(house)
    answer = await onlooker.post("/login/second-factor", {"code": code})
    assert answer.status_code == 403
    assert not await signed_in(onlooker)
    assert house.event("second_factor_failed").reason == "wrong_code"


async def test_an_older_code_than_the_last_does_not_count(house: House, browser: Browser) -> None:
    app, _ = await set_up(browser)
    assert (await (await asked(house)).post("/login/second-factor", {"code": app.code(1)})).status_code == 303
    assert (await (await asked(house)).post("/login/second-factor", {"code": app.code(0)})).status_code == 403


async def test_the_code_of_the_set_up_does_not_sign_in(house: House, browser: Browser) -> None:
    await browser.post("/account/security/app", {"proof": PASSWORD})
    app = App(await browser.get("/account/security/app"))
    code = app.code()
    await browser.post("/account/security/app/confirm", {"code": code})
    assert (await (await asked(house)).post("/login/second-factor", {"code": code})).status_code == 403


async def test_somebody_elses_code_does_not_count(
    house: House, browser: Browser, ada: dict[str, Any]
) -> None:
    app, _ = await set_up(browser)
    _, hers = await set_up(await house.signed_in(ADA, ADAS_PASSWORD), ADAS_PASSWORD)
    half = await asked(house, ADA, ADAS_PASSWORD)
    for code in (app.next(), (await set_up_codes(browser))[0]):
        assert (await half.post("/login/second-factor", {"code": code})).status_code == 403
    assert (await half.post("/login/second-factor", {"code": hers[0]})).status_code == 303


async def set_up_codes(browser: Browser) -> list[str]:
    return codes_of(await browser.post("/account/security/recovery-codes", {"proof": PASSWORD}))


async def test_the_second_step_belongs_to_the_browser_that_gave_the_password(
    house: House, browser: Browser
) -> None:
    app, _ = await set_up(browser)
    await asked(house)
    other = house.browser()
    answer = await other.post("/login/second-factor", {"code": app.next()})
    assert answer.headers["location"] == "/login"
    assert not await signed_in(other)


async def test_the_second_step_cannot_be_made_by_another_site(house: House, browser: Browser) -> None:
    app, _ = await set_up(browser)
    half = await asked(house)
    headers = {"Sec-Fetch-Site": "cross-site", "Accept": "text/html"}
    answer = await half.post("/login/second-factor", {"code": app.next()}, headers)
    assert answer.status_code == 403
    assert not await signed_in(half)


async def test_five_wrong_codes_and_the_password_is_asked_for_again(house: House, browser: Browser) -> None:
    app, _ = await set_up(browser)
    half = await asked(house)
    for _ in range(5):
        assert (await half.post("/login/second-factor", {"code": "000000"})).status_code == 403
    answer = await half.post("/login/second-factor", {"code": app.next()})
    assert answer.headers["location"] == "/login"
    assert not await signed_in(half)


async def test_guesses_are_throttled_however_often_the_password_is_given(
    house: House, browser: Browser
) -> None:
    app, _ = await set_up(browser)
    for _ in range(2):
        guesser = await asked(house)
        for _ in range(5):
            await guesser.post("/login/second-factor", {"code": "000000"})
    guesser = await asked(house)
    answer = await guesser.post("/login/second-factor", {"code": app.next()})
    assert answer.status_code == 429
    assert int(answer.headers["retry-after"]) > 0


async def test_a_guesser_does_not_lock_out_the_browser_that_is_known(house: House, browser: Browser) -> None:
    app, _ = await set_up(browser)
    for _ in range(2):
        guesser = await asked(house)
        for _ in range(5):
            await guesser.post("/login/second-factor", {"code": "000000"})
    await browser.post("/logout")
    await browser.sign_in()
    assert (await browser.post("/login/second-factor", {"code": app.next()})).status_code == 303


async def test_giving_the_password_makes_no_browser_a_known_one(house: House, browser: Browser) -> None:
    """Otherwise each new browser of a guesser could guess anew."""
    await set_up(browser)
    half = await asked(house)
    assert not any("device" in name for name in half.http.cookies)


@pytest.mark.parametrize("change", ["password", "deactivated", "signed out"])
async def test_the_second_step_is_void_when_the_account_changes(
    house: House, browser: Browser, ada: dict[str, Any], change: str
) -> None:
    hers = await house.signed_in(ADA, ADAS_PASSWORD)
    app, _ = await set_up(hers, ADAS_PASSWORD)
    half = await asked(house, ADA, ADAS_PASSWORD)
    if change == "password":
        await hers.post("/account/password", {"present": ADAS_PASSWORD, "new": "yet another long one"})
    elif change == "deactivated":
        await browser.http.patch(f"/api/auth/users/{ada['id']}", json={"active": False}, headers=SAME_ORIGIN)
    else:
        await browser.post(f"/users/{ada['id']}/sign-out-everywhere")
    answer = await half.post("/login/second-factor", {"code": app.next()})
    assert answer.headers["location"] == "/login"
    assert not await signed_in(half)


async def test_the_second_step_expires(house: House, browser: Browser) -> None:
    app, _ = await set_up(browser)
    half = await asked(house)
    house.age("ceremonies", "expires_at", 601)
    answer = await half.post("/login/second-factor", {"code": app.next()})
    assert answer.headers["location"] == "/login"
    assert "has expired" in (await half.get("/login")).text


# -- recovery codes ---------------------------------------------------------------------------------


async def test_a_recovery_code_signs_in_once(house: House, browser: Browser) -> None:
    _, codes = await set_up(browser)
    for typed, status in ((codes[0].upper().replace("-", " "), 303), (codes[0], 403), (codes[1], 303)):
        half = await asked(house)
        assert (await half.post("/login/second-factor", {"code": typed})).status_code == status
    assert house.event("recovery_code_used").email == EMAIL
    assert house.event("signed_in").detail == "password and recovery code"
    assert "8 of your recovery codes are unused" in (await browser.get("/account/security")).text


async def test_new_recovery_codes_void_the_former(house: House, browser: Browser) -> None:
    _, old = await set_up(browser)
    new = await set_up_codes(browser)
    assert not set(old) & set(new)
    half = await asked(house)
    assert (await half.post("/login/second-factor", {"code": old[0]})).status_code == 403
    assert (await half.post("/login/second-factor", {"code": new[0]})).status_code == 303


# -- removing ---------------------------------------------------------------------------------------


async def test_removing_takes_the_password_or_a_code(house: House, browser: Browser) -> None:
    app, _ = await set_up(browser)
    assert (await browser.post("/account/security/app/remove", {"proof": "000000"})).status_code == 403
    assert (await browser.post("/account/security/app/remove", {"proof": ""})).status_code == 403
    assert (await browser.post("/account/security/app/remove", {"proof": app.next()})).status_code == 303
    assert house.event("second_factor_removed").detail == "authenticator app"
    assert (await house.browser().sign_in()).headers["location"] == "/account"
    assert (await house.parts.second_factors.of(house.event("signed_in").user)).recovery_left == 0


async def test_an_administrator_can_remove_it_and_that_is_recorded(
    house: House, browser: Browser, ada: dict[str, Any]
) -> None:
    await set_up(await house.signed_in(ADA, ADAS_PASSWORD), ADAS_PASSWORD)
    page = (await browser.get(f"/users/{ada['id']}/security")).text
    assert "Remove second factor" in page
    answer = await browser.post(f"/users/{ada['id']}/security/remove")
    assert answer.status_code == 303
    event = house.events(AdminEvent)[-1]
    assert (event.event, event.email, event.subject) == ("second_factor_removed", EMAIL, f"user.{ada['id']}")
    assert event.before == '{"authenticator":true,"passkeys":[]}'
    assert (await house.browser().sign_in(ADA, ADAS_PASSWORD)).headers["location"] == "/account"


async def test_members_do_not_remove_other_peoples(house: House, ada: dict[str, Any]) -> None:
    hers = await house.signed_in(ADA, ADAS_PASSWORD)
    admin = house.parts.store.users.page("", 1)[0].id
    for answer in (
        await hers.post(f"/users/{admin}/security/remove"),
        await hers.get(f"/users/{admin}/security"),
        await hers.http.delete(f"/api/auth/users/{admin}/second-factor", headers=SAME_ORIGIN),
    ):
        assert answer.status_code == 403


async def test_whoever_is_deleted_takes_their_factors_along(
    house: House, browser: Browser, ada: dict[str, Any]
) -> None:
    await set_up(await house.signed_in(ADA, ADAS_PASSWORD), ADAS_PASSWORD)
    await asked(house, ADA, ADAS_PASSWORD)
    assert (await browser.post(f"/users/{ada['id']}/delete")).status_code == 303
    assert not (await house.parts.second_factors.of(ada["id"])).any


# -- required ---------------------------------------------------------------------------------------


@pytest.fixture
async def strict(settings: AuthSettings) -> AsyncIterator[House]:
    """Administrators need a second factor."""
    app = create_app(settings.model_copy(update={"auth_require_second_factor": "admins"}))
    house = House(app, app.state.parts.settings)
    async with app.router.lifespan_context(app):
        yield house
        await house.close()


async def test_who_needs_one_sets_it_up_before_they_are_in(strict: House) -> None:
    half = await asked(strict)
    page = await half.get("/login/second-factor")
    assert "requires a second factor" in page.text
    assert not await signed_in(half)
    assert (await half.post("/login/second-factor", {"code": App(page).code()})).headers[
        "location"
    ] == "/login"
    answer = await half.post("/login/second-factor/app", {"code": App(page).code()})
    assert len(codes_of(answer)) == 10
    assert 'href="/activity"' in answer.text
    assert await signed_in(half)
    assert strict.event("signed_in").detail == "password and new authenticator app"


async def test_who_needs_one_cannot_set_up_another_at_the_login(strict: House) -> None:
    """Two browsers began before there was any: the second one must not replace what the first has set up."""
    first, second = await asked(strict), await asked(strict)
    apps = [App(await browser.get("/login/second-factor")) for browser in (first, second)]
    assert (await first.post("/login/second-factor/app", {"code": apps[0].code()})).status_code == 200
    answer = await second.post("/login/second-factor/app", {"code": apps[1].code()})
    assert answer.headers["location"] == "/login"
    assert not await signed_in(second)


async def test_who_needs_one_keeps_the_last(strict: House) -> None:
    half = await asked(strict)
    app = App(await half.get("/login/second-factor"))
    await half.post("/login/second-factor/app", {"code": app.code()})
    answer = await half.post("/account/security/app/remove", {"proof": PASSWORD})
    assert answer.status_code == 409
    assert "Your organization requires a second factor" in answer.text


async def test_others_do_not_need_one(strict: House) -> None:
    await strict.parts.people.add(  # an administrator's doing, told here from inside
        strict.app.state.follower.tables.users[strict.parts.store.users.page("", 1)[0].id],
        ADA,
        "Ada",
        "member",
        ADAS_PASSWORD,
    )
    assert (await strict.browser().sign_in(ADA, ADAS_PASSWORD)).headers["location"] == "/account"


# -- codes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "code"), [(59, "287082"), (1111111109, "081804"), (1234567890, "005924"), (20000000000, "353130")]
)
def test_codes_are_those_of_rfc_6238(at: int, code: str) -> None:
    """Appendix B, SHA-1, the last six digits."""
    secret = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
    assert totp.step_of(secret, code, at) == at // 30
    assert totp.step_of(secret, code, at + 30) == at // 30
    assert totp.step_of(secret, code, at + 60) is None


@pytest.mark.parametrize("text", ["12345", "1234567", "12345a", "١٢٣٤٥٦", "²²²²²²", ""])
def test_what_is_no_code(text: str) -> None:
    assert not totp.is_code(text)
