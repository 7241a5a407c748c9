"""Connecting to a server whose provider is a real process: there, back, and what is refused on the way."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest

from libs.common.control.entries import ORGANIZATION
from services.credentials.settings import CredentialsSettings
from tests.conftest import eventually
from tests.providers.running import OAuthProvider
from tests.unit.conftest import ControlLog, Person, Shipped, SignIn
from tests.unit.credentials.oauth_made import REDIRECT, SLUG, House, guarded, opened


@pytest.fixture
async def bob(sign_in: SignIn) -> Person:
    return await sign_in("member", "bob")


@pytest.fixture
async def house(
    settings: CredentialsSettings, provider: OAuthProvider, control: ControlLog,
    ada: Person, bob: Person, admin: Person,
) -> AsyncIterator[House]:  # fmt: skip
    settings = settings.model_copy(update={"credentials_private_providers": True})
    async with opened(settings, provider, control, ada, bob, admin) as house:
        yield house


def query_of(url: str) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


def changed(url: str, **parameters: str | None) -> str:
    """`url` with other parameters; None takes one out."""
    given = {name: value for name, value in (query_of(url) | parameters).items() if value is not None}
    return f"{url.partition('?')[0]}?{urlencode(given)}"


async def test_one_connects_with_nothing_configured_and_the_upstream_takes_the_token(
    house: House, ada: Person, provider: OAuthProvider
) -> None:
    answer = await house.connect(ada)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/credentials#{SLUG}")
    (account,) = (await house.mine(ada))["accounts"]
    assert (account["label"], account["state"], account["chosen"]) == ("ada@example.com", "connected", True)
    assert account["expires_at"]
    assert await provider.accepts(await house.token(ada))
    assert (await house.entry(ada))["attention"] is False


async def test_the_browser_is_sent_with_pkce_state_resource_and_scopes(house: House, ada: Person) -> None:
    asked = query_of(await house.leave(ada))
    assert asked["redirect_uri"] == REDIRECT
    assert asked["code_challenge_method"] == "S256"
    assert len(asked["code_challenge"]) == 43
    assert len(asked["state"]) >= 43
    assert asked["resource"] == house.provider.server_url
    assert asked["scope"] == "tools offline_access"


async def test_the_page_that_leads_on_needs_no_script_and_may_not_be_framed(
    house: House, ada: Person
) -> None:
    page = await house.post(ada, f"/credentials/servers/{SLUG}/connect", {})
    assert page.headers["refresh"].startswith(f"0; url={house.provider.issuer}/authorize?")
    assert "form-action 'self';" in page.headers["content-security-policy"]
    assert page.headers["referrer-policy"] == "same-origin"
    assert "Continue to 127.0.0.1" in page.text


async def test_lockgate_registers_once_for_all_people(
    house: House, ada: Person, bob: Person, provider: OAuthProvider
) -> None:
    await house.connect(ada)
    await house.connect(bob)
    assert await provider.count("registrations") == 1
    assert await house.token(ada) != await house.token(bob)


async def test_somebody_who_signs_in_there_as_somebody_else_has_two_accounts(
    house: House, ada: Person, provider: OAuthProvider
) -> None:
    await house.connect(ada)
    await provider.set(account="ada@work.example.com")
    await house.connect(ada)
    accounts = (await house.mine(ada))["accounts"]
    assert [(a["label"], a["chosen"]) for a in accounts] == [
        ("ada@work.example.com", True),
        ("ada@example.com", False),
    ]


async def test_connecting_again_as_the_same_person_replaces_the_account(house: House, ada: Person) -> None:
    await house.connect(ada)
    before, token = await house.mine(ada), await house.token(ada)
    await house.connect(ada, account=before["accounts"][0]["id"])
    (account,) = (await house.mine(ada))["accounts"]
    assert account["id"] == before["accounts"][0]["id"]
    assert account["version"] > before["accounts"][0]["version"]
    assert await house.token(ada) != token


async def test_an_account_of_somebody_else_cannot_be_connected_again(
    house: House, ada: Person, bob: Person
) -> None:
    await house.connect(ada)
    account = (await house.mine(ada))["accounts"][0]["id"]
    answer = await house.post(bob, f"/credentials/servers/{SLUG}/connect", {"account": account})
    assert answer.status_code == 404


async def test_an_administrator_connects_an_account_for_everybody(
    house: House, ada: Person, admin: Person
) -> None:
    answer = await house.connect(admin, **{"for": ORGANIZATION})
    assert answer.status_code == 303
    assert (await house.mine(ada))["uses"] == "organization"
    assert await house.control.get(f"credential.{SLUG}.{ORGANIZATION}")


async def test_a_member_may_not_connect_for_everybody(house: House, ada: Person) -> None:
    answer = await house.post(ada, f"/credentials/servers/{SLUG}/connect", {"for": ORGANIZATION})
    assert answer.status_code == 403


async def test_connecting_is_recorded_without_any_secret(
    house: House, ada: Person, provider: OAuthProvider, shipped: Shipped
) -> None:
    await house.connect(ada)
    async with asyncio.timeout(10):
        while not (
            found := [e for e in await shipped("admin_events") if e["event"] == "credential_connected"]
        ):
            await asyncio.sleep(0.05)
    (event,) = found
    assert (event["actor"], event["subject"]) == ("ada", f"credential.{SLUG}.ada")
    state = await provider.state()
    hidden = [*state["secrets"], *(client["client_secret"] for client in state["clients"])]
    everything = str(await shipped("admin_events"))
    assert not [secret for secret in hidden if secret in everything]


# -- what is refused ------------------------------------------------------------------------------


async def test_an_answer_is_taken_once(house: House, ada: Person, provider: OAuthProvider) -> None:
    back = await provider.allow(await house.leave(ada))
    assert (await house.get(ada, back)).status_code == 303
    assert (await house.get(ada, back)).status_code == 400


async def test_an_answer_that_another_person_brings_is_refused_and_stays_good_for_the_right_one(
    house: House, ada: Person, bob: Person, provider: OAuthProvider
) -> None:
    back = await provider.allow(await house.leave(ada))
    refused = await house.get(bob, back)
    assert refused.status_code == 400
    assert "not begun here" in refused.text
    assert (await house.get(ada, back)).status_code == 303


async def test_an_answer_in_another_login_session_of_the_same_person_is_refused(
    house: House, ada: Person, provider: OAuthProvider, signer: Any
) -> None:
    back = await provider.allow(await house.leave(ada))
    elsewhere = {"Cookie": f"lockgate={signer.token('ada', grant='session-elsewhere')}"}
    answer = await house.browsers["ada"].get(back, headers=ada.browser | elsewhere)
    assert answer.status_code == 400


async def test_one_who_is_not_signed_in_is_sent_to_the_login_and_comes_back(
    house: House, ada: Person, provider: OAuthProvider
) -> None:
    back = await provider.allow(await house.leave(ada))
    answer = await house.browsers["ada"].get(back, headers={"Accept": "text/html"})
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/login?next=%2Fcredentials%2Fcallback%3F")


@pytest.mark.parametrize(
    ("parameters", "why"),
    [
        ({"state": "guessed"}, "not begun here"),
        ({"state": None}, "not begun here"),
        ({"iss": "https://evil.example.com"}, "did not come from the provider"),
        ({"iss": None}, "did not come from the provider"),
        ({"code": "guessed"}, "invalid_grant"),
        ({"code": None}, "invalid_grant"),
        ({"code": None, "error": "access_denied"}, "It was not allowed there"),
        ({"error": "server_error", "error_description": "<script>"}, "&lt;script&gt;"),
    ],
)
async def test_an_answer_that_is_not_right_connects_nobody(
    house: House, ada: Person, provider: OAuthProvider, parameters: dict[str, str | None], why: str
) -> None:
    back = changed(await provider.allow(await house.leave(ada)), **parameters)
    answer = await house.get(ada, back)
    assert answer.status_code == 400
    assert why in answer.text
    assert (await house.mine(ada))["accounts"] == []


async def test_a_code_for_which_somebody_else_was_sent_is_of_no_use(
    house: House, ada: Person, bob: Person, provider: OAuthProvider
) -> None:
    """Code injection (RFC 9700, section 4.5): the code of one with the state of another fails by PKCE."""
    of_ada = query_of(await provider.allow(await house.leave(ada)))["code"]
    of_bob = await provider.allow(await house.leave(bob))
    answer = await house.get(bob, changed(of_bob, code=of_ada))
    assert (answer.status_code, "invalid_grant" in answer.text) == (400, True)


async def test_a_server_that_moved_in_the_meantime_is_not_connected(
    house: House, ada: Person, provider: OAuthProvider
) -> None:
    back = await provider.allow(await house.leave(ada))
    revision = await house.control.put(guarded(provider, url="https://elsewhere.example.com/mcp"))
    await eventually(lambda: house.app.state.follower.applied >= revision)
    answer = await house.get(ada, back)
    assert (answer.status_code, "was moved or deleted" in answer.text) == (409, True)


async def test_a_form_of_another_site_sends_nobody_anywhere(house: House, ada: Person) -> None:
    headers = ada.browser | {"Sec-Fetch-Site": "cross-site"}
    answer = await house.browsers["ada"].post(
        f"/credentials/servers/{SLUG}/connect", data={}, headers=headers
    )
    assert answer.status_code == 403


async def test_a_server_that_one_may_not_use_is_unknown(house: House, ada: Person) -> None:
    assert (await house.post(ada, "/credentials/servers/secret/connect", {})).status_code == 404


async def test_a_provider_on_our_own_network_is_not_asked_by_default(
    settings: CredentialsSettings, provider: OAuthProvider, control: ControlLog, ada: Person
) -> None:
    async with opened(settings, provider, control, ada) as house:
        answer = await house.post(ada, f"/credentials/servers/{SLUG}/connect", {})
        assert (answer.status_code, "https" in answer.text) == (502, True)
    assert (await provider.state())["counts"] == {}


async def test_a_registration_that_the_provider_forgot_is_made_anew(
    house: House, ada: Person, provider: OAuthProvider
) -> None:
    back = await provider.allow(await house.leave(ada))
    await provider.do("forget_clients")
    assert (await house.get(ada, back)).status_code == 400
    assert (await house.connect(ada)).status_code == 303
    assert await provider.count("registrations") == 2


async def test_two_accounts_are_kept_apart_in_the_database(house: House, ada: Person, bob: Person) -> None:
    """A swapped ciphertext opens for nobody."""
    await house.connect(ada)
    await house.connect(bob)
    engine = house.app.state.parts.store.database.engine
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE accounts SET wrapped_key = (SELECT wrapped_key FROM accounts o WHERE o.user_id = 'bob'), "
            "box = (SELECT box FROM accounts o WHERE o.user_id = 'bob') WHERE user_id = 'ada'"
        )
    with pytest.raises(Exception, match="changed or moved"):
        await house.token(ada)
