"""Tokens stay good: renewed ahead of expiry and on demand, once, and with nothing lost; what cannot be
renewed needs its owner's attention."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from libs.common.bus import Refused
from services.credentials.oauth import leases
from services.credentials.oauth.domain import Client, Connection
from services.credentials.settings import CredentialsSettings
from tests.conftest import Nats, eventually
from tests.providers.running import OAuthProvider
from tests.unit.conftest import ControlLog, Person, Shipped
from tests.unit.credentials.oauth_made import SLUG, House, opened


@pytest.fixture
async def house(
    settings: CredentialsSettings, provider: OAuthProvider, control: ControlLog, ada: Person
) -> AsyncIterator[House]:
    settings = settings.model_copy(update={"credentials_private_providers": True})
    async with opened(settings, provider, control, ada) as house:
        yield house


async def until_recorded(shipped: Shipped, event: str) -> dict[str, str]:
    """The first record of that event, once it is there."""
    async with asyncio.timeout(10):
        while True:
            for record in await shipped("admin_events"):
                if record["event"] == event:
                    return record
            await asyncio.sleep(0.02)


async def test_a_token_is_renewed_before_it_expires_with_nobody_asking(
    house: House, ada: Person, provider: OAuthProvider, shipped: Shipped, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "EARLIEST", 0.1)
    monkeypatch.setattr(leases, "LATEST", 0.2)
    await provider.set(lifetime=10)
    await house.connect(ada)
    first, version = await house.token(ada), (await house.entry(ada))["version"]
    async with asyncio.timeout(10):
        while (await house.entry(ada))["version"] == version:
            assert await provider.accepts(await house.token(ada)), "there is always a good one"
    second = await house.token(ada)
    assert second != first
    assert await provider.accepts(second)
    record = await until_recorded(shipped, "credential_refreshed")
    assert (record["actor"], record["subject"]) == ("credentials", f"credential.{SLUG}.ada")


def test_the_moment_is_ahead_of_expiry_and_not_the_same_for_all() -> None:
    connection = Connection(
        token_endpoint="https://auth.example.com/token", client=Client(client_id="c"),
        access_token="a", refresh_token="r", obtained_at=1000.0, expires_at=4600.0,
    )  # fmt: skip
    moments = {leases.refresh_at(connection) for _ in range(100)}
    assert all(1000 + 3600 * 0.7 <= moment <= 1000 + 3600 * 0.9 for moment in moments)
    assert len(moments) > 50


async def test_a_gateway_whose_token_was_refused_gets_a_newer_one(
    house: House, ada: Person, provider: OAuthProvider
) -> None:
    await house.connect(ada)
    first, seen = await house.token(ada), (await house.entry(ada))["version"]
    await provider.do("expire")
    assert not await provider.accepts(first)
    version = await house.refresh(ada)
    assert version > seen
    assert (await house.entry(ada))["version"] == version, "the control log has it when the answer comes"
    assert await provider.accepts(await house.token(ada))


async def test_two_hundred_that_ask_at_once_cause_one_refresh(
    house: House, ada: Person, provider: OAuthProvider
) -> None:
    await house.connect(ada)
    await provider.do("expire")
    await provider.set(slow=0.3)
    seen = (await house.entry(ada))["version"]
    versions = await asyncio.gather(*(house.refresh(ada, seen) for _ in range(200)))
    assert len(set(versions)) == 1
    assert await provider.count("refreshes") == 1


async def test_one_that_has_not_seen_the_newest_gets_it_without_a_refresh(
    house: House, ada: Person, provider: OAuthProvider
) -> None:
    await house.connect(ada)
    version = (await house.entry(ada))["version"]
    assert await house.refresh(ada, version - 1) == version
    assert await provider.count("refresh_requests") == 0


async def test_an_upstream_that_refuses_every_token_does_not_make_us_refresh_for_each_call(
    house: House, ada: Person, provider: OAuthProvider
) -> None:
    await house.connect(ada)
    version = await house.refresh(ada)
    for _ in range(5):
        assert await house.refresh(ada) == version, "there is nothing newer"
    assert await provider.count("refreshes") == 1


async def test_an_expired_token_is_renewed_before_a_gateway_gets_it(
    house: House, ada: Person, provider: OAuthProvider
) -> None:
    await house.connect(ada)
    await provider.do("expire")
    with house.app.state.parts.store.database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE accounts SET expires_at = 1")
    tokens = await asyncio.gather(*(house.token(ada) for _ in range(20)))
    assert await provider.accepts(tokens[0])
    assert len(set(tokens)) == 1
    assert await provider.count("refreshes") == 1


async def test_an_empty_refresh_token_in_an_answer_does_not_overwrite_the_good_one(
    house: House, ada: Person, provider: OAuthProvider
) -> None:
    await provider.set(rotate=False, empty_refresh_token=True)
    await house.connect(ada)
    await house.refresh(ada)
    await provider.do("expire")
    house.app.state.oauth.refreshing._asked.clear()  # as if it were later
    await house.refresh(ada)
    assert await provider.count("refreshes") == 2
    assert await provider.accepts(await house.token(ada))


async def test_each_refresh_uses_the_token_that_the_last_one_gave(
    house: House, ada: Person, provider: OAuthProvider
) -> None:
    await house.connect(ada)
    for _ in range(4):
        await house.refresh(ada)
        house.app.state.oauth.refreshing._asked.clear()  # as if it were later
    state = await provider.state()
    assert (state["counts"]["refreshes"], state["counts"].get("reuses", 0)) == (4, 0)
    assert len(state["honoured"]) == 1


async def test_what_the_provider_revoked_needs_attention_until_its_owner_connects_again(
    house: House, ada: Person, provider: OAuthProvider, shipped: Shipped
) -> None:
    await house.connect(ada)
    await provider.do("revoke")
    with pytest.raises(Refused, match="invalid_grant") as refused:
        await house.refresh(ada)
    assert refused.value.reason == "credential-attention"
    assert (await house.entry(ada))["attention"] is True
    standing = await house.mine(ada)
    assert "refuses to renew" in standing["attention"]
    assert standing["accounts"][0]["state"] == "attention"
    record = await until_recorded(shipped, "credential_needs_attention")
    assert "invalid_grant" in record["detail"]
    with pytest.raises(Refused, match="refuses to renew"):
        await house.token(ada)

    await house.connect(ada)
    assert (await house.entry(ada))["attention"] is False
    assert await provider.accepts(await house.token(ada))


async def test_what_needs_attention_is_not_tried_again(
    house: House, ada: Person, provider: OAuthProvider
) -> None:
    await house.connect(ada)
    await provider.do("revoke")
    for _ in range(5):
        with pytest.raises(Refused):
            await house.refresh(ada)
    assert await provider.count("refresh_requests") == 1


async def test_a_provider_that_is_down_is_no_reason_to_connect_again(
    house: House, ada: Person, provider: OAuthProvider
) -> None:
    await house.connect(ada)
    await provider.do("expire")
    await provider.set(status=503)
    seen = (await house.entry(ada))["version"]
    for _ in range(5):
        with pytest.raises(Refused, match="503") as refused:
            await house.refresh(ada, seen)
        assert refused.value.reason == "provider-failed"
    assert await provider.count("failures") == 1, "it is left in peace for a moment"
    assert (await house.entry(ada))["attention"] is False

    await provider.set(status=0)
    async with asyncio.timeout(10):
        while True:
            try:
                assert await house.refresh(ada, seen) > seen
                break
            except Refused:
                await asyncio.sleep(0.05)
    assert await provider.accepts(await house.token(ada))


async def test_a_token_of_which_nothing_is_known_is_renewed_only_when_it_is_refused(
    house: House, ada: Person, provider: OAuthProvider
) -> None:
    await provider.set(say_lifetime=False)
    await house.connect(ada)
    (account,) = (await house.mine(ada))["accounts"]
    assert account["expires_at"] is None
    await provider.do("expire")
    await house.refresh(ada)
    assert await provider.accepts(await house.token(ada))


async def test_a_refresh_goes_on_when_whoever_asked_has_gone_away(
    house: House, ada: Person, provider: OAuthProvider
) -> None:
    await house.connect(ada)
    await provider.set(hold="after")
    seen = (await house.entry(ada))["version"]
    asking = asyncio.create_task(house.refresh(ada, seen))
    async with asyncio.timeout(10):
        while not (await provider.state())["holding"]:
            await asyncio.sleep(0.01)
    asking.cancel()
    await provider.do("release")
    async with asyncio.timeout(10):
        while (await house.entry(ada))["version"] == seen:
            await asyncio.sleep(0.01)
    assert await provider.accepts(await house.token(ada))


async def test_a_service_that_is_stopped_waits_for_the_answer_and_stores_it(
    settings: CredentialsSettings, provider: OAuthProvider, control: ControlLog, ada: Person
) -> None:
    settings = settings.model_copy(update={"credentials_private_providers": True})
    async with opened(settings, provider, control, ada) as house:
        await house.connect(ada)
        await provider.set(hold="after")
        asking = asyncio.create_task(house.refresh(ada))
        async with asyncio.timeout(10):
            while not (await provider.state())["holding"]:
                await asyncio.sleep(0.01)
        releasing = asyncio.create_task(_release_soon(provider))
    await releasing
    await asyncio.gather(asking, return_exceptions=True)
    await provider.set(hold="")
    async with opened(settings, provider, control, ada) as house:
        assert await provider.accepts(await house.token(ada))
        assert await provider.count("reuses") == 0
        await house.refresh(ada)
        assert await provider.count("reuses") == 0


async def _release_soon(provider: OAuthProvider) -> None:
    await asyncio.sleep(0.5)
    await provider.do("release")


async def test_the_control_log_being_away_does_not_lose_a_token(
    house: House, ada: Person, provider: OAuthProvider, nats: Nats
) -> None:
    await provider.set(lifetime=3)
    await house.connect(ada)
    version = (await house.entry(ada))["version"]
    nats.stop()
    account = house.app.state.parts.store.accounts.of_user("ada")[0]
    async with asyncio.timeout(15):
        while house.app.state.parts.store.accounts.account(account.id).version == version:
            await asyncio.sleep(0.05)
    await provider.set(lifetime=3600)
    nats.start()
    await eventually(lambda: house.app.state.parts.store.accounts.account(account.id).state == "connected")
    async with asyncio.timeout(45):
        while (await house.entry(ada))["version"] == version:
            await asyncio.sleep(0.1)
    assert await provider.accepts(await house.token(ada))


async def test_one_who_disconnects_is_revoked_at_the_provider(
    house: House, ada: Person, provider: OAuthProvider, shipped: Shipped
) -> None:
    await house.connect(ada)
    token = await house.token(ada)
    answer = await house.api(ada, "DELETE", f"/api/credentials/mine/servers/{SLUG}")
    assert answer.status_code == 200
    assert await house.control.get(f"credential.{SLUG}.ada") is None
    async with asyncio.timeout(10):
        while await provider.accepts(token):
            await asyncio.sleep(0.05)
    assert (await provider.state())["honoured"] == []
    record = await until_recorded(shipped, "credential_revoked")
    assert record["detail"] == "revoked at its provider"
    await eventually(lambda: not house.app.state.parts.store.accounts.removed())


async def test_a_provider_that_is_down_is_told_later_of_a_disconnection(
    house: House, ada: Person, provider: OAuthProvider
) -> None:
    await house.connect(ada)
    token = await house.token(ada)
    await provider.do("forget_clients")  # so that it refuses to revoke
    await house.api(ada, "DELETE", f"/api/credentials/mine/servers/{SLUG}")
    accounts = house.app.state.parts.store.accounts
    await eventually(lambda: accounts.removed()[0].refresh_at > 0)
    assert len(accounts.removed()) == 1, "it is kept until the provider was told"
    assert await provider.accepts(token)
