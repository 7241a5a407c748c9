"""Guessing passwords: what is refused, who is not locked out by it, and what it leaves behind."""

import asyncio
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import AsyncMock, patch

import pytest
from argon2 import PasswordHasher

from libs.common.errors import Unavailable
from services.auth.domain import TooManyAttempts
from services.auth.passwords import ONE_STRANGER_WAITING, STRANGERS_WAITING, Passwords
from services.auth.throttle import LoginThrottle, Throttle
from tests.unit.auth.house import EMAIL, PASSWORD, Browser, House

PROXY = "192.0.2.1"  # the address that everybody behind one proxy has


async def guess(browser: Browser, times: int, email: str = EMAIL) -> list[int]:
    return [(await browser.sign_in(email, "wrong password")).status_code for _ in range(times)]


async def make_suspect(house: House, address: str) -> None:
    """Fail from there at many accounts, until the address is suspect."""
    for number in range(40):
        house.parts.login_throttle.attempt(f"nobody-{number}@example.com", address)


# -- through the service -----------------------------------------------------------------------------


async def test_guessing_is_throttled_per_account_and_address(house: House) -> None:
    guesser = house.browser("192.0.2.1")
    assert await guess(guesser, 9) == [401] * 8 + [429]
    refused = await guesser.sign_in()  # not even with the right password
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) > 0
    assert house.event("signed_in").reason == "throttled"
    elsewhere = await house.browser("192.0.2.2").sign_in()
    assert elsewhere.status_code == 303  # its owner is not locked out


async def test_addresses_of_one_ipv6_network_count_as_one(house: House) -> None:
    guessers = [house.browser(f"2001:db8::{number:x}") for number in range(9)]
    statuses = [(await guess(guesser, 1))[0] for guesser in guessers]
    assert statuses == [401] * 8 + [429]
    assert (await house.browser("2001:db8:0:1::1").sign_in()).status_code == 303


async def test_good_logins_are_not_throttled(house: House) -> None:
    statuses = {(await house.browser().sign_in()).status_code for _ in range(10)}
    assert statuses == {303}


async def test_a_guesser_behind_the_same_proxy_locks_nobody_else_out(house: House) -> None:
    await house.add_user("ada@example.com")
    await make_suspect(house, PROXY)
    assert await guess(house.browser(PROXY), 4) == [401] * 3 + [429]
    ada = await house.browser(PROXY).sign_in("ada@example.com", "another long password")
    assert ada.status_code == 303


async def test_a_mistyped_password_locks_nobody_out_behind_a_proxy_with_a_guesser(house: House) -> None:
    await make_suspect(house, PROXY)
    browser = house.browser(PROXY)
    assert await guess(browser, 2) == [401, 401]
    assert (await browser.sign_in()).status_code == 303


async def test_who_tries_many_accounts_from_one_address_gets_few_guesses_at_each(house: House) -> None:
    await make_suspect(house, PROXY)
    sprayer = house.browser(PROXY)
    for email in (EMAIL, "not-there@example.com"):  # and the answers do not tell which of them exists
        assert await guess(sprayer, 4, email) == [401] * 3 + [429]


async def test_guesses_of_others_do_not_lock_out_the_browser_that_somebody_always_uses(house: House) -> None:
    mine = house.browser(PROXY)
    await mine.sign_in()
    await mine.post("/logout")
    guesser = house.browser(PROXY)
    await make_suspect(house, PROXY)
    await guess(guesser, 8)
    assert (await guesser.sign_in()).status_code == 429
    assert (await mine.sign_in()).status_code == 303


async def test_guesses_from_a_known_browser_are_throttled_too(house: House) -> None:
    browser = await house.signed_in()
    await browser.post("/logout")
    assert await guess(browser, 9) == [401] * 8 + [429]


async def test_a_device_cookie_is_good_for_its_account_only_and_cannot_be_made(house: House) -> None:
    await house.add_user("eve@example.com")
    eve = await house.signed_in("eve@example.com", "another long password")
    cookie = eve.http.cookies["lockgate-device"]
    await guess(house.browser(), 8)
    for forged in (cookie, "x." + cookie.partition(".")[2], "x", ".", ""):
        guesser = house.browser()
        guesser.http.cookies.set("lockgate-device", forged)
        assert (await guesser.sign_in()).status_code == 429


async def test_an_attempt_that_nobody_looked_at_does_not_count(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = house.browser()
    with monkeypatch.context() as busy:
        busy.setattr(Passwords, "verify", AsyncMock(side_effect=Unavailable("busy")))
        assert {(await browser.sign_in()).status_code for _ in range(10)} == {503}
    assert (await browser.sign_in()).status_code == 303


# -- what it leaves behind ----------------------------------------------------------------------------


async def test_throttled_attempts_are_recorded_once(house: House) -> None:
    guesser = house.browser("192.0.2.1")
    await guess(guesser, 60)
    reasons = Counter(event.reason for event in house.events() if event.event == "signed_in")
    assert reasons == {"wrong_password": 8, "throttled": 1}


async def test_somebody_without_an_account_cannot_fill_the_journal_with_logins(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.auth.login._authenticate", AsyncMock(return_value=None))
    guesser = house.browser("192.0.2.1")
    for number in range(60):
        assert (await guesser.sign_in(f"somebody-{number}@example.com")).status_code == 401
    assert len(house.events()) == 30
    assert (await house.browser("192.0.2.2").sign_in("nobody@example.com")).status_code == 401
    assert house.event("signed_in").address == "192.0.2.2"  # others are recorded all the same


async def test_somebody_without_an_account_cannot_fill_the_journal_with_registrations(house: House) -> None:
    http = house.http("192.0.2.1")
    for _ in range(60):
        answer = await http.post("/oauth/register", json={"redirect_uris": ["https://app.example/cb"]})
        assert answer.status_code == 201
    assert [event.event for event in house.events()] == ["client_registered"] * 30
    assert (await house.browser("192.0.2.1").sign_in(password="wrong")).status_code == 401
    assert house.event("signed_in").reason == "wrong_password"  # one kind does not hide another


async def test_bad_codes_and_tokens_leave_no_record(house: House) -> None:
    client = await house.client()
    before = len(house.events())
    for _ in range(20):
        assert (await client.exchange("guessed")).status_code == 400
        assert (await client.refresh("guessed")).status_code == 400
        revoked = await client.http.post("/oauth/revoke", data={"client_id": client.id, "token": "guessed"})
        assert revoked.status_code == 200
    assert len(house.events()) == before


async def test_a_reused_code_is_recorded_once(house: House, browser: Browser) -> None:
    client = await house.client()
    code = await client.consent(browser)
    for _ in range(10):
        await client.exchange(code)
    assert [event.event for event in house.events()].count("code_reused") == 1


# -- the throttle by itself ---------------------------------------------------------------------------


def test_a_throttle_lets_go_after_its_window() -> None:
    now = 1000.0
    throttle = Throttle(2, 60, clock=lambda: now)
    throttle.attempt("x")
    now += 30
    throttle.attempt("x")
    with pytest.raises(TooManyAttempts):
        throttle.attempt("x")
    throttle.attempt("y")
    now += 30
    throttle.attempt("x")
    throttle.forgive("x")
    throttle.attempt("x")


def test_a_lower_limit_says_when_it_lets_go() -> None:
    now = 1000.0
    throttle = Throttle(8, 60, clock=lambda: now)
    for _ in range(3):
        throttle.attempt("x")
        now += 10
    with pytest.raises(TooManyAttempts) as refused:
        throttle.check("x", 2)
    assert refused.value.headers["Retry-After"] == "40"  # when the second of the three is over
    now += 40
    throttle.check("x", 2)


def test_an_address_stays_suspect_only_while_it_fails() -> None:
    now = 1000.0
    throttle = LoginThrottle(lambda: now)
    for number in range(500):
        throttle.attempt(f"somebody-{number}", PROXY)
    for _ in range(3):
        throttle.attempt("ada", PROXY)
    with pytest.raises(TooManyAttempts):
        throttle.attempt("ada", PROXY)
    now += LoginThrottle.WINDOW
    for _ in range(8):
        throttle.attempt("ada", PROXY)


def test_an_account_is_guarded_against_guesses_from_everywhere() -> None:
    throttle = LoginThrottle(lambda: 1000.0)
    for number in range(100):
        throttle.attempt("ada", f"192.0.2.{number}")
    with pytest.raises(TooManyAttempts):
        throttle.attempt("ada", "198.51.100.1")
    throttle.attempt("ada", "198.51.100.1", device="hers")
    throttle.attempt("grace", "198.51.100.1")


def test_a_refused_attempt_does_not_prolong_the_refusal() -> None:
    now = 1000.0
    throttle = LoginThrottle(lambda: now)
    for _ in range(8):
        throttle.attempt("ada", PROXY)
    for _ in range(10):
        now += LoginThrottle.WINDOW / 10 - 1
        with pytest.raises(TooManyAttempts):
            throttle.attempt("ada", PROXY)
    now += 10
    throttle.attempt("ada", PROXY)


# -- the work that guesses cause -----------------------------------------------------------------------


@contextmanager
def hashing_held() -> Iterator[threading.Event]:
    """No guess is looked at before the event is set."""
    go_on, verify = threading.Event(), PasswordHasher.verify

    def held(self: PasswordHasher, *arguments: str) -> bool:
        assert go_on.wait(60)
        return verify(self, *arguments)

    with patch.object(PasswordHasher, "verify", held):
        try:
            yield go_on
        finally:
            go_on.set()


async def answers(passwords: Passwords, strangers: list[str]) -> Counter[str]:
    """What so many simultaneous guesses are answered with: `looked at` or `busy`."""
    tasks = [passwords.verify(None, "a guess", stranger) for stranger in strangers]
    found = await asyncio.gather(*tasks, return_exceptions=True)
    return Counter("busy" if isinstance(answer, Unavailable) else "looked at" for answer in found)


async def queued(passwords: Passwords, guesses: int) -> None:
    async with asyncio.timeout(5):
        while passwords._waiting.total() < guesses:
            await asyncio.sleep(0)


async def test_one_stranger_cannot_take_all_places_for_argon2(house: House) -> None:
    passwords = house.parts.passwords
    with hashing_held() as go_on:
        crowd = asyncio.create_task(answers(passwords, [PROXY] * 30))
        await queued(passwords, ONE_STRANGER_WAITING)
        another = asyncio.create_task(passwords.verify(None, "a guess", "192.0.2.2"))
        await queued(passwords, ONE_STRANGER_WAITING + 1)
        go_on.set()
        await another  # does not raise
        assert await crowd == {"looked at": ONE_STRANGER_WAITING, "busy": 30 - ONE_STRANGER_WAITING}


async def test_all_strangers_together_leave_places_to_those_who_are_known(house: House) -> None:
    passwords, browser = house.parts.passwords, await house.signed_in()
    await browser.post("/logout")
    strangers = [f"192.0.2.{number % 10}" for number in range(80)]
    with hashing_held() as go_on:
        crowd = asyncio.create_task(answers(passwords, strangers))
        await queued(passwords, STRANGERS_WAITING)
        with pytest.raises(Unavailable):
            await passwords.verify(None, PASSWORD, "198.51.100.1")
        known = asyncio.create_task(browser.sign_in())
        await queued(passwords, STRANGERS_WAITING + 1)
        go_on.set()
        assert (await known).status_code == 303
        assert (await crowd)["looked at"] == STRANGERS_WAITING
