"""Attacks on connecting: secrets that are to go to another provider than the one they are for, and people and
providers that stand in the way of others."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from libs.common.control.entries import Server
from services.credentials.domain import Draft, Owner
from services.credentials.oauth import pending as pendings
from services.credentials.oauth.discovery import discover as really_discover
from services.credentials.oauth.domain import Client, Connection, Found, Metadata
from services.credentials.oauth.provider import OAuthSettings
from services.credentials.oauth.web import Web
from services.credentials.settings import CredentialsSettings
from tests.providers.running import OAuthProvider
from tests.unit.conftest import ControlLog, Person
from tests.unit.credentials.oauth_made import REDIRECT, SLUG, House, opened

PATH = f"/api/credentials/servers/{SLUG}/oauth"
ENTERED = {"client_id": "lockgate-at-provider", "client_secret": "s3cret-of-the-client"}
EVIL = "https://evil.example.com"


@pytest.fixture
async def house(
    settings: CredentialsSettings, provider: OAuthProvider, control: ControlLog, ada: Person, admin: Person
) -> AsyncIterator[House]:
    settings = settings.model_copy(update={"credentials_private_providers": True})
    async with opened(settings, provider, control, ada, admin) as house:
        yield house


async def enter(house: House, admin: Person, **body: Any) -> dict[str, Any]:
    answer = await house.api(admin, "PUT", PATH, body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def register(provider: OAuthProvider) -> None:
    """Make the client that administrators enter known to the provider."""
    await provider.do(
        "client", **ENTERED, redirect_uris=[REDIRECT], token_endpoint_auth_method="client_secret_basic"
    )


def led_astray(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the upstream names an authorization server of the attacker's."""

    async def discover(server: Server, web: Web, **more: Any) -> Found:
        found = await really_discover(server, web, **more)
        metadata = Metadata(
            issuer=EVIL, authorization_endpoint=f"{EVIL}/authorize", token_endpoint=f"{EVIL}/token"
        )
        return Found(metadata=metadata, resource=found.resource)

    monkeypatch.setattr("services.credentials.oauth.connecting.discover", discover)


async def test_a_client_secret_does_not_follow_the_upstream_to_another_authorization_server(
    house: House, ada: Person, admin: Person, provider: OAuthProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    await register(provider)
    await enter(house, admin, **ENTERED)
    await house.connect(ada)
    led_astray(monkeypatch)
    answer = await house.post(ada, f"/credentials/servers/{SLUG}/connect", {})
    assert answer.status_code == 409
    assert EVIL in answer.text
    assert provider.issuer in answer.text


async def test_not_even_when_the_administrator_has_rotated_it_or_changed_something_else(
    house: House, ada: Person, admin: Person, provider: OAuthProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    await register(provider)
    await enter(house, admin, **ENTERED)
    await house.connect(ada)
    await enter(house, admin, client_id=ENTERED["client_id"], scopes="tools")
    await enter(house, admin, **ENTERED | {"client_secret": "rotated"})
    led_astray(monkeypatch)
    assert (await house.post(ada, f"/credentials/servers/{SLUG}/connect", {})).status_code == 409


async def test_a_client_entered_anew_may_be_one_of_another_authorization_server(
    house: House, ada: Person, admin: Person, provider: OAuthProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    await register(provider)
    await enter(house, admin, **ENTERED)
    await house.connect(ada)
    led_astray(monkeypatch)
    await enter(house, admin, client_id="another", client_secret="of the other")
    assert (await house.leave(ada)).startswith(f"{EVIL}/authorize?")


async def test_a_secret_entered_for_a_new_provider_is_not_sent_to_the_earlier_one(
    house: House, ada: Person, admin: Person, provider: OAuthProvider
) -> None:
    """Whoever connected there refreshes there, with what was entered for it."""
    await register(provider)
    await enter(house, admin, **ENTERED, issuer=provider.issuer)
    await house.connect(ada)
    new = {"client_id": ENTERED["client_id"], "client_secret": "for-the-new-one"}
    await enter(house, admin, **new, issuer="https://new.example.com")
    await house.refresh(ada)  # it would be refused with another secret
    assert await provider.accepts(await house.token(ada))


async def test_nobody_is_led_on_unawares_where_another_host_gets_what_they_allow(
    house: House, ada: Person, admin: Person, provider: OAuthProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hostile upstream may send people to an honest provider, and have the code brought to itself."""

    async def discover(server: Server, web: Web, **more: Any) -> Found:
        found = await really_discover(server, web, **more)
        mixed = msgspec.structs.replace(found.metadata, token_endpoint=f"{EVIL}/token")
        return Found(metadata=mixed, resource=found.resource)

    monkeypatch.setattr("services.credentials.oauth.connecting.discover", discover)
    page = await house.post(ada, f"/credentials/servers/{SLUG}/connect", {})
    assert "refresh" not in page.headers
    assert "<strong>evil.example.com:443</strong>" in page.text
    await enter(house, admin, issuer=provider.issuer)  # then an administrator has said that it is right
    assert "refresh" in (await house.post(ada, f"/credentials/servers/{SLUG}/connect", {})).headers


async def test_settings_of_another_provider_do_not_meet_a_sign_in_that_is_under_way(
    house: House, ada: Person, admin: Person, provider: OAuthProvider
) -> None:
    """The address that tells who somebody is gets the token of the provider that it was entered for."""
    back = await provider.allow(await house.leave(ada))
    await enter(house, admin, identity_endpoint=f"{provider.issuer}/control", identity_field="knobs")
    await house.get(ada, back)
    (account,) = (await house.mine(ada))["accounts"]
    assert account["label"] == "ada@example.com"
    connection = _opened(house, account["id"])
    assert connection.lifetime == 0


async def test_a_provider_that_was_changed_in_the_database_gets_no_token(
    house: House, ada: Person, admin: Person, settings: CredentialsSettings, provider: OAuthProvider
) -> None:
    await enter(house, admin, lifetime=60)
    back = await provider.allow(await house.leave(ada))
    evil = '{"identity_endpoint":"https://evil.example.com/","lifetime":1}'
    connection = sqlite3.connect(settings.data_dir / "credentials.db")
    with connection:
        connection.execute("UPDATE providers SET settings = ?", (evil,))
    connection.close()
    await house.get(ada, back)
    (account,) = house.app.state.parts.store.accounts.of_user(ada.user.id)
    assert _opened(house, account.id).lifetime == 60


async def test_nobody_fills_the_database_by_leaving_and_not_coming_back(
    house: House, ada: Person, admin: Person, settings: CredentialsSettings, provider: OAuthProvider
) -> None:
    theirs = await provider.allow(await house.leave(admin))
    kept = house.app.state.oauth.connecting._pendings
    for _ in range(3 * pendings.MOST):
        kept.put(_pending(), ada.user.id, "session")
    connection = sqlite3.connect(settings.data_dir / "credentials.db")
    counts = dict(connection.execute("SELECT user_id, count(*) FROM authorizations GROUP BY user_id"))
    connection.close()
    assert counts == {ada.user.id: pendings.MOST, admin.user.id: 1}
    back = await provider.allow(await house.leave(ada))
    assert (await house.get(ada, back)).status_code == 303, "the newest is kept"
    assert (await house.get(admin, theirs)).status_code == 303, "and other people's"
    assert house.app.state.parts.store.accounts.of_user(admin.user.id)


async def test_a_connection_that_cannot_be_revoked_does_not_hold_up_those_of_others(
    house: House, ada: Person, provider: OAuthProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than are looked at together, all removed earlier than the one that can be."""
    store = house.app.state.parts.store
    for number in range(120):
        broken = Draft(kind="oauth", secret=b"[", origin="https://x:443", label=str(number))
        owner = Owner(SLUG, f"somebody{number}")
        done = store.accounts.put(owner, broken, "x")
        assert done.after
        store.accounts.remove(done.after.id)
    await house.connect(ada)
    token = await house.token(ada)
    await house.api(ada, "DELETE", f"/api/credentials/mine/servers/{SLUG}")
    async with asyncio.timeout(30):
        while await provider.accepts(token):
            await asyncio.sleep(0.05)
        while len(store.accounts.removed(limit=1000)) > 120:  # it is forgotten once the provider has answered
            await asyncio.sleep(0.05)
    assert len(store.accounts.removed(limit=1000)) == 120


async def test_a_refresh_that_ends_after_the_removal_does_not_put_off_the_revocation(house: House) -> None:
    store, name = house.app.state.parts.store, "account/"
    draft = Draft(kind="oauth", secret=b"[", origin="https://x:443")
    account = store.accounts.put(Owner(SLUG, "somebody"), draft, "x").after
    data_key = store.database.new_data_key(name + account.id)
    store.accounts.remove(account.id)
    later = time.time() + 3600
    change = store.accounts.renew(
        account.id, account.sealed_version, data_key, b"[", expires_at=later, refresh_at=later
    )
    assert change.after.refresh_at == 0.0


async def test_a_provider_that_fails_for_long_makes_no_error_grow(
    house: House, ada: Person, provider: OAuthProvider
) -> None:
    """Everybody who asks meanwhile gets the same error; each time it was raised added to its traceback."""
    await house.connect(ada)
    await provider.set(status=500)
    refreshing = house.app.state.oauth.refreshing
    (account,) = house.app.state.parts.store.accounts.of_user(ada.user.id)
    with pytest.raises(Exception, match="500"):
        await refreshing.renew(account)
    rest = refreshing._rests[account.id]
    for _ in range(50):
        rest.until = time.monotonic() + 60
        with pytest.raises(Exception, match="500"):
            await refreshing.renew(account)
    depth, frame = 0, rest.error.__traceback__
    while frame:
        depth, frame = depth + 1, frame.tb_next
    assert depth < 10


def _pending() -> pendings.Pending:
    return pendings.Pending(
        slug=SLUG,
        owner="ada",
        origin="https://x:443",
        verifier="v",
        metadata=Metadata(authorization_endpoint="https://a/a", token_endpoint="https://a/t"),
        client=Client(client_id="c"),
        settings=OAuthSettings(),
    )


def _opened(house: House, account_id: str) -> Connection:
    return Connection.decode(house.app.state.parts.store.accounts.open(account_id)[1])
