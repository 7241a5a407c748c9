"""Nobody learns from an answer which accounts there are."""

import re
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest

from tests.unit.auth.house import EMAIL, SAME_ORIGIN, Browser, House, query

ACTIVE, DEACTIVATED, INVITED, NOBODY = (f"{name}@example.com" for name in ("ada", "bob", "cleo", "zoe"))
EVERYBODY = (ACTIVE, DEACTIVATED, INVITED, NOBODY)


async def api(browser: Browser, method: str, path: str, body: object = None) -> dict[str, Any]:
    answer = await browser.http.request(method, f"/api/auth{path}", json=body, headers=SAME_ORIGIN)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.fixture
async def accounts(house: House, browser: Browser) -> dict[str, str]:
    """Accounts in every state, and a link of each that is no good any more."""
    active, deactivated = await house.add_user(ACTIVE), await house.add_user(DEACTIVATED)
    links = {"unknown": "x" * 43}
    for user in (active, deactivated):
        reset = await api(browser, "POST", f"/users/{user['id']}/password-reset")
        links[user["email"]] = reset["url"].rpartition("/")[2]
    await house.browser().post(f"/login/reset/{links[ACTIVE]}", {"password": "a password for now"})
    await api(browser, "PATCH", f"/users/{deactivated['id']}", {"active": False})
    invited = await api(browser, "POST", "/invitations", {"email": INVITED})
    links[INVITED] = invited["url"].rpartition("/")[2]
    house.age("links", "expires_at", 8 * 24 * 3600)
    return links


def looks(answer: httpx2.Response, *own: str) -> tuple[int, list[str], str, list[str]]:
    """All that an answer tells, but for what it repeats of the question, its nonce and the time."""
    text = re.sub(r"nonce=\"[^\"]+\"", "", answer.text)
    for word in own:
        text = text.replace(word, "…")
    cookies = sorted(header.partition("=")[0] for header in answer.headers.get_list("set-cookie"))
    return answer.status_code, sorted(answer.headers), text, cookies


Ask = Callable[[House, str], Awaitable[httpx2.Response]]


async def wrong_password(house: House, email: str) -> httpx2.Response:
    return await house.browser().sign_in(email, "not the password of anybody")


async def no_password(house: House, email: str) -> httpx2.Response:
    return await house.browser().sign_in(email, "")


async def hinted(house: House, email: str) -> httpx2.Response:
    client = await house.client()
    away = await house.browser().get(client.authorize_url(login_hint=email, state="s"))
    page = await house.browser().get(away.headers["location"])
    assert f'value="{email}"' in page.text
    target = query(away)["next"].replace("&", "&amp;")
    return httpx2.Response(page.status_code, headers=page.headers, text=page.text.replace(target, "…"))


@pytest.mark.parametrize("ask", [wrong_password, no_password, hinted])
async def test_the_login_answers_alike_whoever_it_is_about(
    house: House, accounts: dict[str, str], ask: Ask
) -> None:
    answers = {email: looks(await ask(house, email), email) for email in EVERYBODY}
    assert answers == dict.fromkeys(EVERYBODY, answers[NOBODY])


async def test_a_right_password_of_a_deactivated_account_is_answered_like_a_wrong_one(
    house: House, accounts: dict[str, str]
) -> None:
    right = await house.browser().sign_in(DEACTIVATED, "another long password")
    wrong = await house.browser().sign_in(NOBODY, "another long password")
    assert looks(right, DEACTIVATED) == looks(wrong, NOBODY)


async def test_the_throttle_answers_alike_whoever_it_is_about(house: House, accounts: dict[str, str]) -> None:
    async def exhausted(email: str, address: str) -> httpx2.Response:
        browser = house.browser(address)
        answers = [await browser.sign_in(email, "wrong") for _ in range(9)]
        assert [a.status_code for a in answers] == [401] * 8 + [429]
        return answers[-1]

    known, unknown = await exhausted(ACTIVE, "192.0.2.1"), await exhausted(NOBODY, "192.0.2.2")
    assert looks(known, ACTIVE) == looks(unknown, NOBODY)


@pytest.mark.parametrize("purpose", ["invitation", "reset"])
async def test_a_link_that_is_no_good_is_answered_alike_whatever_is_wrong_with_it(
    house: House, accounts: dict[str, str], purpose: str
) -> None:
    """Used, expired, of a deactivated account, of the other kind, or never made."""
    answers = {}
    for name, secret in accounts.items():
        path = f"/login/{purpose}/{secret}"
        seen, used = await house.browser().get(path), await house.browser().post(path, {"password": "x" * 12})
        answers[name] = looks(seen, secret), looks(used, secret)
        assert "This link is not valid any more" in seen.text
    assert answers == dict.fromkeys(accounts, answers["unknown"])


async def test_there_is_nothing_to_ask_about_an_account_without_an_account(house: House) -> None:
    """There is no registration and no reset by oneself: links come from an administrator."""
    stranger = house.browser()
    me = house.parts.store.users.by_email(EMAIL)
    assert me
    for path in (f"/users/{me[0].id}", "/users/nobody"):
        answer = await stranger.http.get(f"/api/auth{path}")
        assert (answer.status_code, answer.json()["type"]) == (401, "urn:lockgate:error:not-signed-in")
