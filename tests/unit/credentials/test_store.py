"""What the vault keeps, on every database it may be kept in: one suite for SQLite and PostgreSQL."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from libs.common.control.entries import CredentialVersion
from libs.common.sql import open_database, sqlite_url
from services.credentials.app import MIGRATIONS
from services.credentials.domain import Draft, Kind, NoCredential, Owner
from services.credentials.masterkey.local import LocalKey
from services.credentials.store import CredentialStore
from services.credentials.store.keys import unlock
from services.credentials.store.rows import name_of
from tests.unit.conftest import new_database

ADA = Owner("wiki", "ada")
OLD, NEW = LocalKey(bytes(32)), LocalKey(b"n" * 32)


@pytest.fixture(params=["sqlite", "postgresql"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[CredentialStore]:
    sqlite = request.param == "sqlite"
    url = sqlite_url(tmp_path / "v.db") if sqlite else new_database(request.getfixturevalue("postgres"))
    engine = open_database(url, MIGRATIONS)
    yield CredentialStore(engine, unlock(engine, [OLD, NEW]))
    engine.dispose()


def _put(
    store: CredentialStore, secret: str, label: str = "", kind: Kind = "oauth", owner: Owner = ADA
) -> str:
    draft = Draft(kind=kind, secret=secret.encode(), origin="https://wiki.example.com:443", label=label)
    after = store.accounts.put(owner, draft, "ada@example.com").after
    assert after
    return after.id


def _used(store: CredentialStore) -> bytes:
    return store.accounts.open_chosen(ADA)[1]


def test_the_log_has_one_entry_per_owner_that_of_the_chosen_account(store: CredentialStore) -> None:
    first, second = _put(store, "1", "One"), _put(store, "2", "Two")
    (before,) = store.accounts.entries(None).values()
    assert isinstance(before, CredentialVersion)
    assert before.version == store.accounts.account(second).version
    store.accounts.choose(first)
    after = store.accounts.entries(["credential.wiki.ada"])["credential.wiki.ada"]
    assert isinstance(after, CredentialVersion)
    assert after.version > before.version
    assert store.accounts.entries(["credential.wiki.bob"]) == {}


def test_a_renewed_secret_is_a_new_version_and_only_of_the_one_that_was_read(store: CredentialStore) -> None:
    account = store.accounts.account(_put(store, "old"))
    data_key = store.database.new_data_key(name_of(account.id))
    renewed = store.accounts.renew(
        account.id, account.sealed_version, data_key, b"new", expires_at=5.0, refresh_at=4.0
    )
    assert renewed and renewed.after and renewed.after.version > account.version
    assert (renewed.after.expires_at, renewed.after.refresh_at) == (5.0, 4.0)
    late = store.accounts.renew(
        account.id, account.sealed_version, data_key, b"late", expires_at=0.0, refresh_at=0.0
    )
    assert late is None
    assert _used(store) == b"new"


def test_attention_is_about_the_secret_that_was_tried(store: CredentialStore) -> None:
    account = store.accounts.account(_put(store, "old"))
    _put(store, "new")
    assert store.accounts.need_attention(account.id, account.sealed_version, "Refused.") is None
    present = store.accounts.account(account.id)
    change = store.accounts.need_attention(account.id, present.sealed_version, "Refused.")
    assert change and change.after and change.after.entry().attention
    assert change.after.version > present.version
    assert store.accounts.need_attention(account.id, present.sealed_version, "Again.") is None
    assert _used(store) == b"new"  # the envelope is as it was
    _put(store, "newer")
    assert store.accounts.account(account.id).state == "connected"


def test_a_removed_connection_stays_for_its_provider_and_for_nobody_else(store: CredentialStore) -> None:
    account = _put(store, "token")
    store.accounts.remove(account)
    assert store.accounts.all() == store.accounts.of_user("ada") == []
    assert store.accounts.entries(None) == {}
    assert store.accounts.users() == set()
    for read in (store.accounts.account, store.accounts.choose, store.accounts.remove):
        with pytest.raises(NoCredential):
            read(account)
    assert [item.id for item in store.accounts.removed()] == [account]
    assert store.accounts.open(account)[1] == b"token"
    store.accounts.forget(account)
    assert store.accounts.removed() == []


def test_a_refresh_that_ends_after_the_removal_keeps_the_newest_token_to_revoke(
    store: CredentialStore,
) -> None:
    account = store.accounts.account(_put(store, "old"))
    store.accounts.remove(account.id)
    data_key = store.database.new_data_key(name_of(account.id))
    store.accounts.renew(account.id, account.sealed_version, data_key, b"new", expires_at=0.0, refresh_at=0.0)
    assert store.accounts.entries(None) == {}
    assert store.accounts.open(account.id)[1] == b"new"


def test_a_connected_account_is_not_forgotten(store: CredentialStore) -> None:
    account = _put(store, "token")
    store.accounts.forget(account)
    assert _used(store) == b"token"


def test_a_removed_key_is_gone(store: CredentialStore) -> None:
    store.accounts.remove(_put(store, "{}", kind="api_key"))
    assert store.accounts.removed() == []


def test_a_changed_provider_makes_everybody_ask_again(store: CredentialStore) -> None:
    account = store.accounts.account(_put(store, "token"))
    store.providers.put("wiki", "oauth", "ada@example.com", settings='{"a":1}', secret=b"s3cret")
    assert store.accounts.account(account.id).version > account.version
    assert _used(store) == b"token"
    found = store.providers.open("wiki")
    assert found and (found[0].settings, found[1]) == ('{"a":1}', b"s3cret")


def test_a_providers_secret_is_replaced_only_in_what_was_read(store: CredentialStore) -> None:
    _, before, _ = store.providers.put("wiki", "oauth", "ada@example.com", secret=b"one")
    assert store.providers.reseal(before, b"two")
    store.providers.put("wiki", "oauth", "ada@example.com", secret=b"three")
    assert not store.providers.reseal(before, b"late")
    found = store.providers.open("wiki")
    assert found and found[1] == b"three"


def test_the_master_key_is_changed_under_all_of_them(store: CredentialStore) -> None:
    for number in range(5):
        _put(store, str(number), owner=Owner("wiki", f"user-{number}"))
    store.providers.put("wiki", "oauth", "ada@example.com", secret=b"s3cret")
    assert store.master_keys.use(NEW.id)
    assert not store.master_keys.use(NEW.id)
    while records := store.master_keys.pending(2):
        assert store.master_keys.rewrap(records) == len(records)
    assert store.master_keys.retire() == [OLD.id]
    state = store.master_keys.state()
    assert (state.key_id, state.done, state.total, state.complete) == (NEW.id, 6, 6, True)
    engine = store.database.engine
    afterwards = CredentialStore(engine, unlock(engine, [NEW]))
    assert [afterwards.accounts.open_chosen(Owner("wiki", f"user-{n}"))[1] for n in range(5)] == [
        b"0", b"1", b"2", b"3", b"4"
    ]  # fmt: skip


def test_of_many_who_store_at_once_one_account_is_chosen_and_no_version_repeats(
    store: CredentialStore,
) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: _put(store, str(number), f"Account {number}"), range(16)))
    accounts = store.accounts.of_user("ada")
    assert len({account.version for account in accounts}) == 16
    (chosen,) = (account for account in accounts if account.chosen)
    assert chosen.version == max(account.version for account in accounts)


def test_the_same_stored_at_once_is_one_account(store: CredentialStore) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(lambda number: _put(store, str(number), "Work"), range(4)))
    assert [account.id for account in store.accounts.of_user("ada")] == list(found)


def test_whoever_connects_again_while_it_is_removed_does_not_take_the_token_from_the_revocation(
    store: CredentialStore,
) -> None:
    first = _put(store, "one", "Work")
    store.accounts.remove(first)
    assert _put(store, "two", "Work") != first
    assert store.accounts.open(first)[1] == b"one"


def test_an_error_of_the_database_does_not_tell_the_values(store: CredentialStore) -> None:
    """It is logged, with its traceback."""
    with store.database.engine.connect() as connection, pytest.raises(SQLAlchemyError) as failed:
        connection.execute(text("INSERT INTO nowhere VALUES (:secret)"), {"secret": "swordfish"})
    assert "swordfish" not in str(failed.value)
