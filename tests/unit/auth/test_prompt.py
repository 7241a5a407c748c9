"""What a client may say about the person and how to ask them: `prompt`, `login_hint`, `offline_access`."""

import pytest

from tests.unit.auth.house import EMAIL, ORIGIN, PASSWORD, REDIRECT, Browser, Client, House, query

SITE = "https://app.example/cb"


# -- prompt=none (OpenID Connect Core 1.0, section 3.1.2.6) --------------------------------------------


async def test_none_is_answered_with_consent_required_to_who_is_signed_in(
    browser: Browser, client: Client
) -> None:
    for answer in (
        await browser.get(client.authorize_url(prompt="none")),
        await browser.post(client.authorize_url(prompt="none"), {"decision": "allow"}),
    ):
        assert answer.headers["location"].startswith(REDIRECT)
        sent = query(answer)
        assert (sent["error"], sent["state"], sent["iss"]) == ("consent_required", "a state", ORIGIN)
        assert "code" not in sent


async def test_none_is_answered_with_login_required_when_nobody_is_signed_in(
    house: House, client: Client
) -> None:
    answer = await house.browser().get(client.authorize_url(prompt="none"))
    sent = query(answer)
    assert answer.headers["location"].startswith(REDIRECT)
    assert (sent["error"], sent["state"], sent["iss"]) == ("login_required", "a state", ORIGIN)


async def test_none_sends_nobody_to_a_site_that_nobody_here_has_connected(
    house: House, browser: Browser
) -> None:
    """RFC 9700, section 4.11.2: clients register freely, so this would be an open redirector."""
    client = await house.client(redirect_uris=[SITE])
    for changes in ({}, {"scope": "x"}, {"response_type": "token"}, {"code_challenge": None}):
        url = client.authorize_url(redirect_uri=SITE, prompt="none", **changes)
        answer = await house.browser().get(url)
        assert (answer.status_code, "location" in answer.headers) == (400, False)
    code = await client.consent(browser, redirect_uri=SITE)
    assert (await client.exchange(code, redirect_uri=SITE)).status_code == 200
    known = await house.browser().get(client.authorize_url(redirect_uri=SITE, prompt="none"))
    assert known.headers["location"].startswith(SITE)
    assert query(known)["error"] == "login_required"


async def test_none_tells_the_client_of_other_mistakes_too(house: House, client: Client) -> None:
    url = client.authorize_url(prompt="none", code_challenge_method="plain")
    assert query(await house.browser().get(url))["error"] == "invalid_request"


async def test_none_for_a_client_nobody_knows_leads_nowhere(house: House) -> None:
    for client_id in ("nobody", "https://elsewhere.example/client.json"):
        client = Client(house.http(), client_id)
        answer = await house.browser().get(client.authorize_url(prompt="none"))
        assert (answer.status_code, "location" in answer.headers) == (400, False)


# -- prompt=login ------------------------------------------------------------------------------------


async def test_login_asks_for_the_password_again_and_once(
    house: House, browser: Browser, client: Client
) -> None:
    away = await browser.get(client.authorize_url(prompt="login consent"))
    assert away.headers["location"].startswith("/login?")
    form = await browser.get(away.headers["location"])
    assert (form.status_code, "Sign in</h1>" in form.text) == (200, True)
    before = browser.http.cookies["lockgate-login"]
    entered = await browser.sign_in(EMAIL, PASSWORD, next=query(away)["next"])
    assert browser.http.cookies["lockgate-login"] != before
    consent = await browser.get(entered.headers["location"])
    assert "Connect Test client?" in consent.text
    code = query(await browser.post(entered.headers["location"], {"decision": "allow"}))["code"]
    assert (await client.exchange(code)).status_code == 200


async def test_login_cannot_be_passed_by_answering_the_form_directly(
    browser: Browser, client: Client
) -> None:
    answer = await browser.post(client.authorize_url(prompt="login"), {"decision": "allow"})
    assert answer.headers["location"].startswith("/login?")


async def test_login_changes_nothing_else_of_the_request(browser: Browser, client: Client) -> None:
    away = await browser.get(
        client.authorize_url(prompt="login", state="ä & = ?", login_hint="a+b@example.com")
    )
    back = client.authorize_url(state="ä & = ?", login_hint="a+b@example.com")
    assert query(away)["next"] == back


async def test_login_asks_who_is_not_signed_in_once_only(house: House, client: Client) -> None:
    browser = house.browser()
    away = await browser.get(client.authorize_url(prompt="login"))
    entered = await browser.sign_in(next=query(away)["next"])
    assert "Connect Test client?" in (await browser.get(entered.headers["location"])).text


@pytest.mark.parametrize("prompt", ["consent", "select_account", "consent select_account"])
async def test_consent_and_select_account_are_what_the_consent_page_does(
    browser: Browser, client: Client, prompt: str
) -> None:
    page = await browser.get(client.authorize_url(prompt=prompt))
    assert EMAIL in page.text
    assert "Use another account" in page.text
    assert await client.consent(browser, prompt=prompt)


@pytest.mark.parametrize("prompt", ["create", "none login", "login none consent", "LOGIN", "consent;x"])
async def test_an_unknown_prompt_and_none_with_others_are_refused(
    house: House, browser: Browser, client: Client, prompt: str
) -> None:
    sent = query(await browser.get(client.authorize_url(prompt=prompt)))
    assert (sent["error"], sent["state"], sent["iss"]) == ("invalid_request", "a state", ORIGIN)
    stranger = await house.browser().get(client.authorize_url(prompt=prompt))
    assert stranger.headers["location"].startswith(("/login?", REDIRECT))
    assert "code=" not in stranger.headers["location"]


# -- login_hint --------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [{}, {"prompt": "login"}])
async def test_a_hint_fills_in_the_address(house: House, client: Client, more: dict[str, str]) -> None:
    browser = house.browser()
    away = await browser.get(client.authorize_url(login_hint="ada+x@example.com", **more))
    form = await browser.get(away.headers["location"])
    assert 'name="email" value="ada+x@example.com"' in form.text


async def test_what_was_typed_stands_above_the_hint(house: House, client: Client) -> None:
    form = await house.browser().sign_in(
        "eve@example.com", "wrong", next=client.authorize_url(login_hint="ada@example.com")
    )
    assert 'name="email" value="eve@example.com"' in form.text


@pytest.mark.parametrize(
    ("hint", "shown"),
    [
        ("+49 30 1234", ""),
        ("x" * 400, ""),
        ('"><script>@example.com', "&#34;&gt;&lt;script&gt;@example.com"),
    ],
)
async def test_a_hint_cannot_inject_markup_and_has_to_be_an_address(
    house: House, client: Client, hint: str, shown: str
) -> None:
    browser = house.browser()
    away = await browser.get(client.authorize_url(login_hint=hint))
    form = await browser.get(away.headers["location"])
    assert f'name="email" value="{shown}"' in form.text


# -- offline_access ----------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", [None, "mcp", "mcp offline_access", "offline_access"])
@pytest.mark.parametrize("registered", [True, False])
async def test_a_refresh_token_depends_on_the_registered_grant_alone(
    house: House, browser: Browser, scope: str | None, registered: bool
) -> None:
    grants = ["authorization_code", *(["refresh_token"] if registered else [])]
    client = await house.client(grant_types=grants)
    tokens = await client.connect(browser, scope=scope)
    assert ("refresh_token" in tokens) is registered
    assert ("offline_access" in tokens["scope"].split()) is ("offline_access" in (scope or ""))
