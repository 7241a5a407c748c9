"""The authorization code flow: what a client gets, and what is refused."""

import re
from dataclasses import replace

import pytest

from libs.common.tokens import InvalidToken, standing
from tests.unit.auth.house import ORIGIN, REDIRECT, SERVER, Browser, Client, House, query


async def test_a_client_gets_tokens_for_the_server_it_asked_for(
    house: House, browser: Browser, client: Client
) -> None:
    tokens = (await client.exchange(await client.consent(browser))).json()
    assert (tokens["token_type"], tokens["expires_in"]) == ("Bearer", 3600)
    assert set(tokens["scope"].split()) == {"mcp", "offline_access"}
    claims = house.claims(tokens["access_token"])
    assert (claims.audience, claims.client_id, claims.client_name) == ((SERVER,), client.id, "Test client")
    assert standing(house.app.state.follower.tables, claims).email == "admin@example.com"
    assert house.event("granted").server == "demo"


async def test_the_answer_names_its_issuer_and_repeats_the_state(browser: Browser, client: Client) -> None:
    answer = await browser.post(client.authorize_url(), {"decision": "allow"})
    assert answer.headers["location"].startswith(f"{REDIRECT}?")
    assert (query(answer)["iss"], query(answer)["state"]) == (ORIGIN, "a state")


async def test_somebody_not_signed_in_comes_back_after_the_login(house: House, client: Client) -> None:
    browser = house.browser()
    answer = await browser.get(client.authorize_url())
    assert answer.headers["location"].startswith("/login?next=%2Foauth%2Fauthorize%3F")
    entered = await browser.sign_in(next=client.authorize_url())
    assert entered.headers["location"] == client.authorize_url()


async def test_the_consent_page_says_who_wants_what_as_whom(browser: Browser, client: Client) -> None:
    page = await browser.get(client.authorize_url())
    for fact in ("Test client", "127.0.0.1", SERVER, "admin@example.com"):
        assert fact in page.text
    assert "form-action 'self' http://127.0.0.1:33418 https:" in page.headers["content-security-policy"]


def destination_on(page: str) -> str:
    """What the consent page says about where the answer goes, as one line of text."""
    found = re.search(r"<dt>It answers at</dt><dd>(.*?)</dd>", page, re.S)
    assert found
    return " ".join(re.sub(r"<[^>]+>", "", found[1]).split())


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://127.0.0.1:33418/callback", "127.0.0.1, an application on this computer"),
        ("https://app.example:8443/cb", "app.example"),
        ("evil-app://trusted.example/cb", "an application that handles evil-app: links"),
        ("evil-app:/cb", "an application that handles evil-app: links"),
    ],
)
async def test_the_consent_page_says_where_the_answer_goes(
    house: House, browser: Browser, uri: str, shown: str
) -> None:
    client = await house.client(redirect_uris=[uri])
    page = await browser.get(client.authorize_url(redirect_uri=uri))
    assert destination_on(page.text) == shown
    assert "trusted.example" not in page.text.partition('<form method="post"')[0]


async def test_a_remote_site_is_never_called_an_application_on_this_computer(
    house: House, browser: Browser, client: Client
) -> None:
    """However its scheme is written: such a URI may have been registered by an earlier version."""
    uri = "HTTPS://evil.example/cb"
    known = house.parts.store.clients.get(client.id)
    assert known
    house.parts.store.clients.put(replace(known, id="old", redirect_uris=(uri,)))
    page = await browser.get(client.authorize_url(client_id="old", redirect_uri=uri))
    assert page.status_code == 200
    assert destination_on(page.text) == "evil.example"
    assert "on this computer" not in page.text


async def test_a_client_name_cannot_inject_markup(house: House, browser: Browser) -> None:
    client = await house.client(client_name="<script>alert(1)</script>")
    page = await browser.get(client.authorize_url())
    assert "<script>alert" not in page.text
    assert "&lt;script&gt;" in page.text


async def test_a_refused_consent_tells_the_client_so(house: House, browser: Browser, client: Client) -> None:
    answer = await browser.post(client.authorize_url(), {"decision": "deny"})
    assert (query(answer)["error"], query(answer)["iss"]) == ("access_denied", ORIGIN)
    assert house.event("consented").reason == "denied_by_user"


async def test_consent_from_another_site_is_refused(house: House, browser: Browser, client: Client) -> None:
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}, {"X-Nothing": "1"}):
        answer = await browser.post(client.authorize_url(), {"decision": "allow"}, headers)
        assert answer.status_code == 403
        assert "location" not in answer.headers


# -- PKCE (RFC 7636; RFC 9700, section 4.8) -----------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"code_challenge": None, "code_challenge_method": None},
        {"code_challenge_method": None},
        {"code_challenge_method": "plain"},
        {"code_challenge": "too-short"},
    ],
)
async def test_a_request_without_s256_challenge_is_refused(
    browser: Browser, client: Client, changes: dict[str, str | None]
) -> None:
    answer = await browser.get(client.authorize_url(**changes))
    assert (query(answer)["error"], query(answer)["iss"]) == ("invalid_request", ORIGIN)


@pytest.mark.parametrize("verifier", [None, "x" * 43, "short"])
async def test_a_code_without_its_verifier_buys_nothing(
    browser: Browser, client: Client, verifier: str | None
) -> None:
    code = await client.consent(browser)
    answer = await client.exchange(code, code_verifier=verifier)
    assert answer.status_code == 400
    assert answer.json()["error"] in {"invalid_grant", "invalid_request"}
    assert (await client.exchange(code)).status_code == 200


# -- redirect URIs -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "uri",
    [
        "https://evil.example/callback",
        "http://127.0.0.1:33418/other",
        "http://127.0.0.1:33418/callback?x=1",
        "http://127.0.0.1:33418@evil.example/callback",
        "http://localhost:33418/callback",
        'http://127.0.0.1/"><script>',
        "http://127.0.0.1:33418/callback#x",
        "http://127.0.0.1:33418\\@evil.example/callback",
        "ümlaut",
    ],
)
async def test_a_foreign_redirect_uri_is_refused_without_redirecting(
    browser: Browser, client: Client, uri: str
) -> None:
    for changes in ({}, {"response_type": "token"}):
        answer = await browser.get(client.authorize_url(redirect_uri=uri, **changes))
        assert answer.status_code == 400
        assert "location" not in answer.headers
        assert "text/html" in answer.headers["content-type"]


async def test_a_loopback_redirect_may_use_any_port(browser: Browser, client: Client) -> None:
    uri = "http://127.0.0.1:51234/callback"
    code = await client.consent(browser, redirect_uri=uri)
    assert (await client.exchange(code, redirect_uri=REDIRECT)).json()["error"] == "invalid_grant"
    assert (await client.exchange(code, redirect_uri=uri)).status_code == 200


async def test_an_unknown_client_is_refused_without_redirecting(browser: Browser, client: Client) -> None:
    answer = await browser.get(client.authorize_url(client_id="nobody"))
    assert (answer.status_code, "location" in answer.headers) == (400, False)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": '"quoted"'}, "unsupported_response_type"),
        ({"response_type": None}, "invalid_request"),
        ({"resource": "https://elsewhere.example/mcp/demo"}, "invalid_target"),
    ],
)
async def test_an_error_goes_back_to_the_client_with_state_and_issuer(
    browser: Browser, client: Client, changes: dict[str, str | None], error: str
) -> None:
    sent = query(await browser.get(client.authorize_url(**changes)))
    assert (sent["error"], sent["iss"]) == (error, ORIGIN)
    assert sent.get("state") == "a state"


@pytest.mark.parametrize(
    "changes",
    [
        {"response_type": "token"},
        {"response_type": None},
        {"resource": "https://elsewhere.example/mcp/demo"},
        {"code_challenge": None, "code_challenge_method": None},
        {"scope": "x"},
    ],
)
async def test_nobody_is_sent_to_a_client_before_they_have_signed_in(
    house: House, changes: dict[str, str | None]
) -> None:
    """RFC 9700, section 4.11.2: clients register freely, so this would be an open redirector."""
    site = "https://evil.example/cb"
    client = await house.client(redirect_uris=[site])
    url = client.authorize_url(redirect_uri=site, **changes)
    stranger = house.browser()
    for answer in (await stranger.get(url), await stranger.post(url, {"decision": "deny"})):
        assert answer.status_code == 303
        assert answer.headers["location"].startswith("/login?next=%2Foauth%2Fauthorize%3F")
    entered = await stranger.sign_in(next=url)
    assert entered.headers["location"] == url
    assert (await stranger.get(url)).headers.get("location", site).startswith(site)


async def test_a_repeated_parameter_is_refused(browser: Browser, client: Client) -> None:
    twice = await browser.get(client.authorize_url(code_challenge=[client.challenge, "y" * 43]))
    assert (twice.status_code, "location" in twice.headers) == (400, False)
    exchange = await client.exchange(await client.consent(browser), code_verifier=[client.verifier, "z" * 43])
    assert exchange.json()["error"] == "invalid_request"


# -- codes -------------------------------------------------------------------------------------------


async def test_a_code_used_twice_revokes_what_it_gave(house: House, browser: Browser, client: Client) -> None:
    code = await client.consent(browser)
    tokens = (await client.exchange(code)).json()
    again = await client.exchange(code)
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    with pytest.raises(InvalidToken) as refused:
        standing(house.app.state.follower.tables, house.claims(tokens["access_token"]))
    assert refused.value.reason == "token_revoked"
    assert (await client.refresh(tokens["refresh_token"])).json()["error"] == "invalid_grant"
    assert house.event("code_reused").outcome == "refused"


async def test_a_code_is_good_for_a_minute(house: House, browser: Browser, client: Client) -> None:
    code = await client.consent(browser)
    house.age("codes", "expires_at", 61)
    assert (await client.exchange(code)).json()["error"] == "invalid_grant"


async def test_a_code_is_of_use_to_its_client_only(house: House, browser: Browser, client: Client) -> None:
    code = await client.consent(browser)
    other = await house.client()
    assert (await other.exchange(code, code_verifier=client.verifier)).json()["error"] == "invalid_grant"
    assert (await client.exchange(code)).status_code == 200


async def test_codes_and_refresh_tokens_are_stored_as_hashes(
    house: House, browser: Browser, client: Client
) -> None:
    code = await client.consent(browser)
    tokens = (await client.exchange(code)).json()
    house.parts.store.database.close()
    stored = b"".join(path.read_bytes() for path in house.settings.data_dir.glob("auth.db*"))
    house.parts.store.database.open()
    for secret in (code, tokens["refresh_token"], tokens["access_token"]):
        assert secret.encode() not in stored


# -- the token endpoint ------------------------------------------------------------------------------


async def test_token_errors_are_json_and_never_stored(house: House, client: Client) -> None:
    for params, error in (
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"grant_type": "authorization_code"}, "invalid_request"),
        ({"grant_type": "authorization_code", "code": "x", "client_id": "nobody"}, "invalid_client"),
        ({"grant_type": "refresh_token", "refresh_token": "x"}, "invalid_grant"),
    ):
        answer = await client.token(**params)
        assert answer.json()["error"] == error
        assert answer.headers["cache-control"] == "no-store"
    wrong_type = await client.http.post("/oauth/token", json={"grant_type": "authorization_code"})
    assert (wrong_type.status_code, wrong_type.json()["error"]) == (400, "invalid_request")


async def test_a_confidential_client_has_to_show_its_secret(house: House, browser: Browser) -> None:
    client = await house.client(token_endpoint_auth_method="client_secret_basic")
    code = await client.consent(browser)
    refused = await client.exchange(code)
    assert (refused.status_code, refused.json()["error"]) == (401, "invalid_client")
    assert (await client.exchange(code, client_secret="wrong")).status_code == 401
    assert (await client.exchange(code, client_secret=client.secret)).status_code == 200


async def test_a_client_without_the_refresh_grant_gets_no_refresh_token(
    house: House, browser: Browser
) -> None:
    client = await house.client(grant_types=["authorization_code"])
    assert "refresh_token" not in await client.connect(browser)
