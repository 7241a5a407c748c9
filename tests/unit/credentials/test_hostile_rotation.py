"""The master key changes while something is being stored: nothing is ever wrapped by one that was retired."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from libs.common.sql import open_database
from services.credentials.app import MIGRATIONS
from services.credentials.domain import Account, Draft, Owner
from services.credentials.masterkey.local import LocalKey
from services.credentials.oauth.domain import Client, Connection, TokenAnswer
from services.credentials.oauth.renewal import Renewal
from services.credentials.oauth.web import Web
from services.credentials.store import CredentialStore
from services.credentials.store.database import KeyRetired
from services.credentials.store.keys import unlock
from services.credentials.vault import DataKey

ADA = Owner("wiki", "ada")
OLD, NEW = LocalKey(bytes(32)), LocalKey(b"n" * 32)
CONNECTION = Connection(
    token_endpoint="https://auth.example.com/token",
    client=Client(client_id="c"),
    access_token="a",
    refresh_token="r",
    obtained_at=1.0,
)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'v.db'}"


@pytest.fixture
def store(url: str) -> Iterator[CredentialStore]:
    engine = open_database(url, MIGRATIONS)
    yield CredentialStore(engine, unlock(engine, [OLD, NEW]))
    engine.dispose()


def put(store: CredentialStore, label: str = "") -> Account:
    draft = Draft(
        kind="oauth", secret=CONNECTION.encode(), origin="https://wiki.example.com:443", label=label
    )
    after = store.accounts.put(ADA, draft, "ada@example.com").after
    assert after
    return after


def go_over(store: CredentialStore, key: LocalKey = NEW) -> None:
    """The whole rotation."""
    store.master_keys.use(key.id)
    while records := store.master_keys.pending(100):
        store.master_keys.rewrap(records)
    store.master_keys.retire()


def opens_with_the_new_key_alone(url: str) -> bool:
    """What an administrator does who was told that the earlier key is not needed any more."""
    engine = open_database(url, MIGRATIONS)
    try:
        accounts = CredentialStore(engine, unlock(engine, [NEW])).accounts
        return all(accounts.open(account.id) for account in accounts.all())
    finally:
        engine.dispose()


class Rotating:
    """Goes over to the new key right after a data key was made."""

    def __init__(self, store: CredentialStore) -> None:
        self.store, self.make, self.times = store, store.database.new_data_key, 0

    def __call__(self, name: str) -> DataKey:
        data_key = self.make(name)
        self.times += 1
        if self.times == 1:
            go_over(self.store)
        return data_key


def test_what_is_stored_meanwhile_is_wrapped_by_the_new_key(
    store: CredentialStore, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, "one")
    monkeypatch.setattr(store.database, "new_data_key", Rotating(store))
    put(store, "two")
    assert store.master_keys.state().complete
    assert opens_with_the_new_key_alone(url)


async def test_so_is_a_token_that_arrives_afterwards_and_it_is_not_lost(
    store: CredentialStore, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = put(store)

    async def ask(*_: Any, **__: Any) -> TokenAnswer:
        go_over(store)  # while the provider takes its time
        return TokenAnswer(access_token="new", refresh_token="rotated", obtained_at=2.0)

    monkeypatch.setattr("services.credentials.oauth.endpoints.refresh", ask)
    await Renewal(store.database, Web(), Silent()).renew(account, "test")  # type: ignore[arg-type]
    renewed = Connection.decode(store.accounts.open(account.id)[1])
    assert (renewed.access_token, renewed.refresh_token) == ("new", "rotated")
    assert store.master_keys.state().complete
    assert opens_with_the_new_key_alone(url)


def test_a_provider_is_not_stored_with_a_retired_key(
    store: CredentialStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider = store.providers.put("wiki", "oauth", "ada", secret=b"{}")[1]
    monkeypatch.setattr(store.database, "new_data_key", Rotating(store))
    with pytest.raises(KeyRetired):
        store.providers.reseal(provider, b'{"client_secret":"s"}')
    assert store.providers.reseal(provider, b'{"client_secret":"s"}')
    assert store.master_keys.state().complete


class Silent:
    """Nobody to tell."""

    async def tell(self, *_: object) -> None: ...
