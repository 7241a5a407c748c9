"""Signing keys: replaced on schedule, without a moment in which a good token is refused."""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from joserfc import jws

from libs.common.control.owner import Receipt
from libs.common.tokens import InvalidToken
from services.auth.app import create_app
from services.auth.domain import KEY_AHEAD, KEY_KEPT, SigningKey
from services.auth.keys import SigningKeys
from services.auth.rotation import Rotation, due, over
from services.auth.settings import DAY, AuthSettings
from services.auth.store import Store
from tests.conftest import eventually
from tests.unit.auth.house import Browser, Client, House

LIFETIME = 90 * DAY


@pytest.fixture
async def replica(house: House, settings: AuthSettings) -> AsyncIterator[House]:
    """A second replica of the service, on the same database and control log."""
    app = create_app(settings.model_copy(update={"data_dir": settings.data_dir.parent / "second"}))
    replica = House(app, settings)
    async with app.router.lifespan_context(app):
        yield replica
        await replica.close()


@pytest.fixture
def settings(settings: AuthSettings) -> AuthSettings:
    return settings.model_copy(update={"auth_database_url": settings.database_url})


def rotation(house: House) -> Rotation:
    return Rotation(house.parts.store, house.parts.keys, house.parts.owner, LIFETIME)


async def published(house: House) -> None:
    """The first key is known to be public soon after the start."""
    await eventually(lambda: house.parts.store.keys.live()[-1].published_at)


def pass_time(house: House, seconds: int) -> None:
    for column in ("created_at", "published_at"):
        house.age("signing_keys", column, seconds)


def kid_of(token: str) -> str:
    return str(jws.extract_compact(token.encode()).headers()["kid"])


def public_kids(house: House) -> list[str]:
    return [str(key["kid"]) for key in house.app.state.follower.tables.keys.keys]


async def jwks_kids(house: House) -> list[str]:
    keys: list[dict[str, Any]] = (await house.http().get("/.well-known/jwks.json")).json()["keys"]
    return [key["kid"] for key in keys]


async def test_a_young_key_is_left_alone(house: House) -> None:
    await published(house)
    kids = await jwks_kids(house)
    pass_time(house, LIFETIME - KEY_AHEAD - 60)
    await rotation(house).proceed()
    assert await jwks_kids(house) == public_kids(house) == kids


async def test_a_key_is_public_before_it_signs_and_verifies_until_its_last_token_has_expired(
    house: House, browser: Browser, client: Client
) -> None:
    await published(house)
    (old,) = await jwks_kids(house)
    early = (await client.connect(browser))["access_token"]

    pass_time(house, LIFETIME - KEY_AHEAD)
    await rotation(house).proceed()
    both = await jwks_kids(house)
    assert (both[0], len(both), public_kids(house)) == (old, 2, both)
    assert kid_of((await client.connect(browser))["access_token"]) == old, "the new one waits"

    pass_time(house, KEY_AHEAD)
    await rotation(house).proceed()
    late = (await client.connect(browser))["access_token"]
    assert (kid_of(early), kid_of(late)) == (old, both[1])
    for token in (early, late):
        assert house.claims(token).client_id == client.id
    assert (await browser.get("/account")).status_code == 200, "a cookie that the old one signed"

    pass_time(house, KEY_KEPT - 60)
    await rotation(house).proceed()
    assert await jwks_kids(house) == both

    pass_time(house, 60)
    await rotation(house).proceed()
    assert await jwks_kids(house) == public_kids(house) == both[1:]
    assert house.claims(late).client_id == client.id
    with pytest.raises(InvalidToken, match="token_unknown_key"):
        house.claims(early)


async def test_a_retired_key_is_kept_without_its_private_part(house: House) -> None:
    await published(house)
    pass_time(house, LIFETIME)
    await rotation(house).proceed()
    pass_time(house, KEY_AHEAD + KEY_KEPT)
    await rotation(house).proceed()
    with house.parts.store.database.engine.begin() as connection:
        rows = connection.exec_driver_sql("SELECT jwk, retired_at FROM signing_keys ORDER BY number").all()
    assert [('"d"' in str(jwk), retired is None) for jwk, retired in rows] == [(False, False), (True, True)]


async def test_a_key_that_is_not_certainly_public_does_not_sign(
    house: House, browser: Browser, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway has not confirmed it, or the control log cannot be written: the old one goes on."""
    await published(house)
    (old,) = await jwks_kids(house)
    pass_time(house, LIFETIME)
    owner = house.parts.owner

    async def unheard(*keys: str) -> Receipt:
        return Receipt(0, False)

    with monkeypatch.context() as away:
        away.setattr(owner, "publish", unheard)
        await rotation(house).proceed()
    house.age("signing_keys", "created_at", 10 * DAY)
    await asyncio.to_thread(house.parts.keys.load)
    assert kid_of((await client.connect(browser))["access_token"]) == old
    await rotation(house).proceed()
    pass_time(house, KEY_AHEAD)
    await asyncio.to_thread(house.parts.keys.load)
    assert kid_of((await client.connect(browser))["access_token"]) != old
    assert len(await jwks_kids(house)) == 2, "and none was made in the meantime"


async def test_two_replicas_make_one_key_and_agree_on_who_signs(house: House, replica: House) -> None:
    await published(house)
    pass_time(house, LIFETIME)
    await asyncio.gather(*(rotation(one).proceed() for one in (house, replica) for _ in range(3)))
    both = await jwks_kids(house)
    assert len(both) == 2
    for one in (house, replica):
        await asyncio.to_thread(one.parts.keys.load)
        assert await one.parts.owner.reconcile() == 0, "neither undoes what the other wrote"
        assert await jwks_kids(one) == both
        assert one.parts.keys.signer.kid == both[0]
    pass_time(house, KEY_AHEAD)
    for one in (house, replica):
        await asyncio.to_thread(one.parts.keys.load)
        assert one.parts.keys.signer.kid == both[1]


async def test_what_one_replica_signs_the_other_admits(house: House, replica: House) -> None:
    await published(house)
    pass_time(house, LIFETIME)
    await rotation(house).proceed()
    pass_time(house, KEY_AHEAD)
    await asyncio.to_thread(house.parts.keys.load)
    client, browser = await house.client(), await house.signed_in()
    tokens = await client.connect(browser)
    assert replica.claims(tokens["access_token"]).client_id == client.id
    client.http = replica.http()
    assert (await client.refresh(tokens["refresh_token"])).status_code == 200


async def test_replicas_that_start_together_make_one_first_key(settings: AuthSettings) -> None:
    store = Store(settings.database_url)
    await store.start()
    with ThreadPoolExecutor(8) as threads:
        for load in [threads.submit(SigningKeys(store).load) for _ in range(8)]:
            load.result()
    assert len(store.keys.live()) == 1
    await store.stop()


def key(number: int, created_at: int, published_at: int | None) -> SigningKey:
    return SigningKey(f"key {number}", number, {}, created_at, published_at)


@pytest.mark.parametrize(
    ("newest", "now", "expected"),
    [
        (key(1, 0, 0), LIFETIME - KEY_AHEAD - 1, False),
        (key(1, 0, 0), LIFETIME - KEY_AHEAD, True),
        (key(1, 0, None), 10 * LIFETIME, False),
    ],
)
def test_when_the_next_key_is_due(newest: SigningKey, now: int, expected: bool) -> None:
    assert due(newest, LIFETIME, now) is expected


@pytest.mark.parametrize(
    ("live", "now", "expected"),
    [
        ([key(1, 0, 0)], 10**10, []),
        ([key(1, 0, 0), key(2, 0, 100)], 100 + KEY_AHEAD + KEY_KEPT - 1, []),
        ([key(1, 0, 0), key(2, 0, 100)], 100 + KEY_AHEAD + KEY_KEPT, [1]),
        ([key(1, 0, 0), key(2, 0, None)], 10**10, []),
        ([key(1, 0, 0), key(2, 0, 100), key(3, 0, 10**9)], 10**8, [1]),
    ],
)
def test_which_keys_are_over(live: list[SigningKey], now: int, expected: list[int]) -> None:
    assert [one.number for one in over(live, now)] == expected
