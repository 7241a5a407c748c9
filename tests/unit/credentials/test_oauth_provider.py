"""What an administrator may say about a server's provider, by API and page, and that it is done so."""

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from libs.common.control.entries import Server
from services.credentials.settings import CredentialsSettings
from tests.conftest import eventually
from tests.providers.running import OAuthProvider
from tests.unit.conftest import ControlLog, Person
from tests.unit.credentials.oauth_made import REDIRECT, SLUG, House, guarded, opened

PATH = f"/api/credentials/servers/{SLUG}/oauth"
PAGE = f"/credentials/servers/{SLUG}/oauth"
ENTERED = {"client_id": "lockgate-at-provider", "client_secret": "s&cret:with=signs"}


@pytest.fixture
async def house(
    settings: CredentialsSettings, provider: OAuthProvider, control: ControlLog, ada: Person, admin: Person
) -> AsyncIterator[House]:
    """Here a provider that an upstream names must be on the open internet; one that is entered need not."""
    async with opened(settings, provider, control, ada, admin) as house:
        yield house


async def known_there(provider: OAuthProvider, method: str = "client_secret_basic") -> None:
    """Register the client that administrators enter, at a provider where nobody registers by themselves."""
    await provider.set(registration=False)
    client = {**ENTERED, "redirect_uris": [REDIRECT], "token_endpoint_auth_method": method}
    await provider.do("client", **client)


async def put(house: House, admin: Person, **body: Any) -> dict[str, Any]:
    answer = await house.api(admin, "PUT", PATH, body)
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()
    return result


@pytest.mark.parametrize("method", ["client_secret_basic", "client_secret_post"])
async def test_a_client_that_is_entered_connects_and_refreshes(
    house: House, ada: Person, admin: Person, provider: OAuthProvider, method: str
) -> None:
    await known_there(provider, method)
    view = await put(house, admin, **ENTERED, issuer=provider.issuer, auth_method=method)
    assert (view["has_secret"], view["redirect_uri"], view["receipt"]["complete"]) == (True, REDIRECT, True)
    assert "s&cret" not in str(view)
    await house.connect(ada)
    await house.refresh(ada)
    assert await provider.accepts(await house.token(ada))
    assert await provider.count("registrations") == 0


async def test_endpoints_that_are_entered_need_nothing_from_the_upstream(
    house: House, ada: Person, admin: Person, provider: OAuthProvider
) -> None:
    await known_there(provider)
    await provider.set(require_resource=False)
    body = {
        "authorization_endpoint": f"{provider.issuer}/authorize",
        "token_endpoint": f"{provider.issuer}/token",
        "identity_endpoint": f"{provider.issuer}/userinfo",
        "identity_field": "sub",
        "scopes": "tools",
        "send_resource": False,
        "authorize_parameters": {"access_type": "offline"},
    }
    await put(house, admin, **ENTERED, **body)
    asked = parse_qs(urlsplit(await house.leave(ada)).query)
    assert (asked["access_type"], asked["scope"], "resource" in asked) == (["offline"], ["tools"], False)
    await house.connect(ada)
    (account,) = (await house.mine(ada))["accounts"]
    assert account["label"] == "ada@example.com"


async def test_a_command_is_connected_by_what_is_entered_and_gets_the_token_in_its_environment(
    house: House, ada: Person, admin: Person, provider: OAuthProvider
) -> None:
    await known_there(provider)
    command = Server(version=2, slug=SLUG, name="Guarded", transport="stdio", command=["serve"], auth="oauth")
    revision = await house.control.put(command)
    await eventually(lambda: house.app.state.follower.applied >= revision)
    refused = await house.post(ada, f"/credentials/servers/{SLUG}/connect", {})
    assert (refused.status_code, "enter the issuer" in refused.text) == (400, True)

    placement = {"into": "environment", "name": "GUARDED_TOKEN", "template": "{access_token}"}
    body = {"issuer": provider.issuer, "resource": "urn:guarded", "placements": [placement]}
    await put(house, admin, **ENTERED, **body)
    assert (await house.connect(ada)).status_code == 303
    injection = await house.injection(ada)
    assert (list(injection.environment), injection.headers) == (["GUARDED_TOKEN"], {})


async def test_a_token_goes_where_the_administrator_says(
    house: House, ada: Person, admin: Person, provider: OAuthProvider
) -> None:
    await known_there(provider)
    placement = {"into": "header", "name": "X-Token", "template": "token={access_token}"}
    await put(house, admin, **ENTERED, issuer=provider.issuer, placements=[placement])
    await house.connect(ada)
    injection = await house.injection(ada)
    assert list(injection.headers) == ["x-token"]
    assert await provider.accepts(injection.headers["x-token"].removeprefix("token="))


async def test_a_secret_that_is_rotated_at_the_provider_mends_refreshes_without_anybody_connecting_again(
    house: House, ada: Person, admin: Person, provider: OAuthProvider
) -> None:
    await known_there(provider)
    await put(house, admin, **ENTERED, issuer=provider.issuer)
    await house.connect(ada)
    new = ENTERED | {"client_secret": "rotated"}
    await provider.do("client", **new, redirect_uris=[REDIRECT])
    with pytest.raises(Exception, match="invalid_client") as refused:
        await house.refresh(ada)
    assert refused.value.reason == "provider-failed"  # type: ignore[attr-defined]
    await put(house, admin, **new, issuer=provider.issuer)
    house.app.state.oauth.refreshing._rests.clear()  # as if it were later
    await house.refresh(ada)
    assert await provider.accepts(await house.token(ada))


async def test_a_secret_is_kept_for_the_same_provider_only(
    house: House, admin: Person, provider: OAuthProvider
) -> None:
    """Else whoever may change the address could have it sent to themselves."""
    await put(house, admin, **ENTERED, issuer=provider.issuer)
    same = {"client_id": ENTERED["client_id"], "issuer": provider.issuer}
    assert (await put(house, admin, **same, scopes="tools"))["has_secret"] is True
    assert (await put(house, admin, **same | {"issuer": "https://evil.example.com"}))["has_secret"] is False


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"client_secret": "x"}, "needs a client id"),
        ({"token_endpoint": "https://a.example.com/t"}, "both"),
        (
            {
                "token_endpoint": "https://a.example.com/t",
                "authorization_endpoint": "https://a.example.com/a",
            },
            "need a client id",
        ),
        ({"issuer": "ftp://a.example.com"}, "issuer must be a URL"),
        ({"issuer": "https://user:pw@a.example.com"}, "issuer must be a URL"),
        ({"scopes": "a  b"}, "single spaces"),
        ({"lifetime": -1}, "lifetime"),
        ({"authorize_parameters": {"redirect_uri": "https://evil.example.com"}}, "sent by Lockgate itself"),
        ({"token_parameters": {"Client_Secret": "x"}}, "sent by Lockgate itself"),
        ({"placements": [{"into": "header", "name": "Host", "template": "{access_token}"}]}, "belongs to"),
        ({"placements": [{"into": "header", "name": "X-A", "template": "{key}"}]}, "field that there is not"),
        ({"placements": [{"into": "environment", "name": "A", "template": "{access_token}"}]}, "over HTTP"),
        ({"unknown": 1}, "unknown"),
    ],
)
async def test_settings_that_can_never_work_are_refused_and_the_message_says_why(
    house: House, admin: Person, body: dict[str, Any], why: str
) -> None:
    answer = await house.api(admin, "PUT", PATH, body)
    assert answer.status_code in {400, 422}, answer.text
    assert why in answer.text


async def test_only_administrators_see_and_change_them(house: House, ada: Person) -> None:
    for method, body in (("GET", None), ("PUT", {}), ("DELETE", None)):
        assert (await house.api(ada, method, PATH, body)).status_code == 403
    assert (await house.get(ada, PAGE)).status_code == 403


async def test_a_server_of_another_kind_has_none(
    house: House, admin: Person, provider: OAuthProvider
) -> None:
    revision = await house.control.put(guarded(provider, auth="api_key"))
    await eventually(lambda: house.app.state.follower.applied >= revision)
    assert (await house.api(admin, "PUT", PATH, {})).status_code == 409


async def test_what_was_set_can_be_forgotten_and_whoever_is_connected_stays_so(
    house: House, ada: Person, admin: Person, provider: OAuthProvider
) -> None:
    await known_there(provider)
    await put(house, admin, **ENTERED, issuer=provider.issuer)
    await house.connect(ada)
    answer = await house.api(admin, "DELETE", PATH)
    assert (answer.status_code, answer.json()["client_id"], answer.json()["has_secret"]) == (200, "", False)
    assert await provider.accepts(await house.token(ada))


async def test_the_page_saves_what_is_typed_and_never_shows_the_secret(
    house: House, admin: Person, provider: OAuthProvider
) -> None:
    page = await house.get(admin, PAGE)
    assert (page.status_code, REDIRECT in page.text) == (200, True)
    form = {
        **ENTERED,
        "issuer": provider.issuer,
        "send_resource": "true",
        "more_authorize": "access_type=offline\nprompt=consent",
        "header": "Authorization",
        "template": "Bearer {access_token}",
        "lifetime": "0",
    }
    saved = await house.post(admin, PAGE, form)
    assert (saved.status_code, saved.headers["location"]) == (303, PAGE)
    page = await house.get(admin, PAGE)
    assert "prompt=consent" in page.text
    assert "s&amp;cret" not in page.text
    view = (await house.api(admin, "GET", PATH)).json()
    assert view["authorize_parameters"] == {"access_type": "offline", "prompt": "consent"}
    assert (view["has_secret"], view["send_resource"], view["assume_pkce"]) == (True, True, False)


async def test_a_form_with_a_mistake_comes_back_as_it_was_typed_without_the_secret(
    house: House, admin: Person
) -> None:
    form = {**ENTERED, "issuer": "nonsense", "header": "Authorization", "template": "Bearer {access_token}"}
    page = await house.post(admin, PAGE, form)
    assert page.status_code == 400
    assert "issuer must be a URL" in page.text
    assert 'value="nonsense"' in page.text
    assert "s&amp;cret" not in page.text
