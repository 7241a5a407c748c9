"""Attacks on people: on their cookies and sessions, their passwords, and what they consent to."""

import re
from http.cookies import SimpleCookie
from typing import Any
from unittest.mock import patch

from tests.unit.auth.attacks.table import MALLORY, MALLORYS_PASSWORD, Scene, attack, said
from tests.unit.auth.house import EMAIL, ORIGIN, SAME_ORIGIN

NO_LOGIN = "401 The e-mail address or the password is not right."


# -- cookies and sessions ------------------------------------------------------------------------------


@attack("RFC 6265bis, 4.1.3", told="__Host-, HttpOnly, Secure, SameSite=lax, Path=/", https=True)
async def taking_or_planting_cookies(scene: Scene) -> str:
    """From a script, over plain HTTP, from another site, or from another host of the domain."""
    answer = await scene.house.browser().sign_in()
    cookies: list[Any] = [*map(SimpleCookie, answer.headers.get_list("set-cookie"))]
    morsels = [morsel for cookie in cookies for morsel in cookie.values()]
    assert len(morsels) == 3
    (told,) = {
        f"{m.key[:7]}, {'HttpOnly' * m['httponly']}, {'Secure' * m['secure']}, SameSite={m['samesite']}, "
        f"Path={m['path']}{m['domain']}"
        for m in morsels
    }
    return told


@attack("OWASP, session fixation", told="200 Sign in")
async def a_session_planted_before_the_login(scene: Scene) -> str:
    browser, thief = scene.house.browser(), scene.house.browser()
    for name in ("lockgate-login", "lockgate"):
        browser.http.cookies.set(name, "planted")
        thief.http.cookies.set(name, "planted")
    assert (await browser.sign_in()).status_code == 303
    return said(await thief.get("/login?next=/account"))


@attack("OWASP, session fixation", told="200 Sign in", recorded=())
async def a_session_from_before_another_login(scene: Scene) -> str:
    old = scene.victim.http.cookies["lockgate-login"]
    await scene.victim.sign_in()
    thief = scene.house.browser()
    thief.http.cookies.set("lockgate-login", old)
    return said(await thief.get("/login?next=/account"))


# -- guessing ------------------------------------------------------------------------------------------


@attack(
    "4.13",
    "OWASP, credential stuffing",
    told="429 Too many attempts. Try again in 15 minutes.",
    recorded=("signed_in: wrong_password", "signed_in: throttled"),
)
async def guessing_a_password_and_lying_about_the_address(scene: Scene) -> str:
    """A header of a proxy is believed only from a proxy (LOCKGATE_TRUSTED_PROXIES)."""
    browser = scene.house.browser("192.0.2.1")
    for number in range(9):
        headers = SAME_ORIGIN | {
            "X-Forwarded-For": f"198.51.100.{number}",
            "X-Real-IP": f"203.0.113.{number}",
        }
        answer = await browser.post("/login", {"email": EMAIL, "password": "guessed"}, headers)
    assert (await browser.sign_in()).status_code == 429, "the right one comes too late"
    return said(answer)


@attack("OWASP, user enumeration", told=f"{NO_LOGIN} after 1 hash", recorded="signed_in: wrong_password")
async def finding_out_who_has_an_account(scene: Scene) -> str:
    """The answer and the work are the same: timing tells nothing."""
    hasher, told = scene.house.parts.passwords._hasher, set()
    await scene.house.add_user("gone@example.com")
    gone = scene.house.parts.store.users.by_email("gone@example.com")
    assert gone
    scene.house.parts.store.users.change(gone[0].id, name=None, role=None, active=False)
    for email in (EMAIL, "nobody@example.com", "gone@example.com", "not an address", ""):
        with patch.object(type(hasher), "verify", autospec=True, side_effect=type(hasher).verify) as verify:
            answer = await scene.house.browser().sign_in(email, "not the password")
        told.add(f"{said(answer)} after {verify.call_count} hash")
    (only,) = told
    return only


@attack("OWASP, user enumeration", told=NO_LOGIN, recorded="signed_in: inactive")
async def trying_the_password_of_a_deactivated_account(scene: Scene) -> str:
    user = await scene.house.add_user(MALLORY, password=MALLORYS_PASSWORD)
    scene.house.parts.store.users.change(user["id"], name=None, role=None, active=False)
    told = {said(await scene.house.browser().sign_in(MALLORY, MALLORYS_PASSWORD))}
    with patch.object(type(scene.house.parts.second_factors), "required", return_value=True):
        told.add(said(await scene.house.browser().sign_in(MALLORY, MALLORYS_PASSWORD)))
    (only,) = told
    return only


@attack("RFC 8628, 5.1", told="429 Too many attempts. Try again in 60 minutes.")
async def guessing_the_code_of_a_device(scene: Scene) -> str:
    mallory = await scene.mallory()
    for number in range(21):
        form = {"user_code": f"AAAA-{number:04}", "decision": "allow"}
        answer = await mallory.post("/oauth/device", form)
    return said(answer)


# -- consent -------------------------------------------------------------------------------------------


@attack("4.15", "MCP, confused deputy", told="200 Connect Test client?")
async def a_second_client_that_hopes_for_the_consent_given_to_the_first(scene: Scene) -> str:
    """Consent is given to one client, and each time: a name and a loopback redirect are anybody's."""
    await scene.client.connect(scene.victim)
    twin = await scene.house.client()  # of the same name and redirect URI
    assert twin.id != scene.client.id
    again = said(await scene.victim.get(scene.client.authorize_url()))
    (told,) = {again, said(await scene.victim.get(twin.authorize_url()))}
    return told


@attack("RFC 8252, 8.6", told="127.0.0.1, an application on this computer")
async def a_client_that_takes_the_name_of_another(scene: Scene) -> str:
    """The page shows where the answer goes, and that the name is only what the application says."""
    twin = await scene.house.client()
    page = (await scene.victim.get(twin.authorize_url())).text
    assert "The name is what the application calls itself." in page
    found = re.search(r"<dt>It answers at</dt><dd>(.*?)</dd>", page, re.S)
    assert found
    return " ".join(re.sub(r"<[^>]+>", "", found[1]).split())


@attack("RFC 8628, 5.4", told="400 authorization_pending")
async def a_link_that_connects_the_attackers_device(scene: Scene) -> str:
    """Opening it allows nothing: the person is asked, and a form of another site does not answer."""
    grants = ["urn:ietf:params:oauth:grant-type:device_code"]
    client = await scene.house.client(grant_types=grants, redirect_uris=[], response_types=[])
    begun = (await client.http.post("/oauth/device_authorization", data={"client_id": client.id})).json()
    page = await scene.victim.get(begun["verification_uri_complete"].removeprefix(ORIGIN))
    assert page.status_code == 200 and begun["user_code"] in page.text
    form = {"user_code": begun["user_code"], "decision": "allow"}
    forced = await scene.victim.post("/oauth/device", form, {"Sec-Fetch-Site": "cross-site"})
    assert forced.status_code == 403
    return said(await client.token(grant_type=grants[0], device_code=begun["device_code"]))
