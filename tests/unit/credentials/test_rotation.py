"""Going over to another master key while serving. (With 10,000 records and a kill: tests/faults.)"""

import base64
import secrets
import sqlite3
from typing import Any

import pytest

from libs.common.errors import Unavailable
from libs.common.settings import BadSettings
from services.credentials.app import create_app
from services.credentials.domain import CredentialUnreadable
from services.credentials.masterkey.local import LocalKey
from services.credentials.masterkey.port import MasterKeyUnavailable
from services.credentials.rotation import WHO_KNOWS, Known, WhoKnows
from services.credentials.settings import CredentialsSettings
from services.credentials.store import CredentialStore
from services.credentials.vault import Vault as Envelopes
from tests.conftest import Nats, eventually
from tests.unit.conftest import Shipped
from tests.unit.credentials.conftest import LEASE, Vault, server

ROTATION = "/api/credentials/rotation"
OLD, NEW = LocalKey(secrets.token_bytes(32)), LocalKey(secrets.token_bytes(32))


def _text(*keys: LocalKey) -> str:
    return ",".join(base64.b64encode(key.raw).decode() for key in keys)


def _settings(nats: Nats, tmp_path: Any, main: LocalKey, *more: LocalKey) -> CredentialsSettings:
    return CredentialsSettings(
        nats_url=nats.url, data_dir=tmp_path / "data", lease=LEASE,
        credentials_master_key=_text(main), credentials_more_keys=_text(*more),
    )  # fmt: skip


@pytest.fixture
def settings(nats: Nats, tmp_path: Any) -> CredentialsSettings:
    return _settings(nats, tmp_path, OLD, NEW)


def _wrapped_by(settings: CredentialsSettings) -> set[str]:
    connection = sqlite3.connect(settings.data_dir / "credentials.db")
    try:
        query = "SELECT key_id FROM accounts UNION SELECT key_id FROM providers"
        return {str(key) for (key,) in connection.execute(query)}
    finally:
        connection.close()


async def _rotate(vault: Vault, key: LocalKey = NEW) -> dict[str, Any]:
    answer = await vault.api.put(ROTATION, json={"key": key.id})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def _done(vault: Vault, settings: CredentialsSettings, key: LocalKey = NEW) -> None:
    await eventually(lambda: _wrapped_by(settings) == {key.id})


async def test_a_vault_is_sealed_with_the_main_key(vault: Vault, settings: CredentialsSettings) -> None:
    await vault.store("s3cret")
    assert _wrapped_by(settings) == {OLD.id}
    state = (await vault.api.get(ROTATION)).json()
    assert (state["key"], state["done"], state["total"]) == (OLD.id, 2, 2)
    assert (state["complete"], state["known"]) == (True, [OLD.id, NEW.id])


async def test_every_record_goes_over_and_opens_all_the_while(
    vault: Vault, settings: CredentialsSettings
) -> None:
    stored = await vault.store("s3cret")
    await _rotate(vault)
    assert await vault.open() == {"x-api-key": "s3cret"}
    await _done(vault, settings)
    assert await vault.open() == {"x-api-key": "s3cret"}
    entry = await vault.control.get("credential.wiki.organization")
    assert entry and entry["version"] == stored["version"]  # no gateway has to ask again


async def test_what_is_stored_after_it_began_is_wrapped_by_the_new_key(
    vault: Vault, settings: CredentialsSettings
) -> None:
    await _rotate(vault)
    await vault.store("s3cret")
    assert _wrapped_by(settings) == {NEW.id}


async def test_it_can_go_back(vault: Vault, settings: CredentialsSettings) -> None:
    await vault.store("s3cret")
    await _rotate(vault)
    await _done(vault, settings)
    await _rotate(vault, OLD)
    await _done(vault, settings, OLD)
    assert await vault.open() == {"x-api-key": "s3cret"}


async def test_afterwards_the_earlier_key_is_not_needed(
    vault: Vault, settings: CredentialsSettings, nats: Nats, tmp_path: Any
) -> None:
    await vault.store("s3cret")
    await _rotate(vault)
    await _finished(vault)
    create_app(_settings(nats, tmp_path, NEW))
    with pytest.raises(BadSettings, match="not the master key"):
        create_app(_settings(nats, tmp_path, OLD))


async def test_before_it_is_done_both_are_needed(
    vault: Vault, settings: CredentialsSettings, nats: Nats, tmp_path: Any
) -> None:
    """Whoever takes the earlier key away too soon is told, and loses nothing."""
    await vault.store("s3cret")
    store: CredentialStore = vault.app.state.parts.store
    store.master_keys.use(NEW.id)  # and nobody goes on
    for alone in (OLD, NEW):
        with pytest.raises(BadSettings, match="LOCKGATE_CREDENTIALS_MORE_KEYS"):
            create_app(_settings(nats, tmp_path, alone))
    create_app(_settings(nats, tmp_path, NEW, OLD))


async def test_it_is_recorded(vault: Vault, shipped: Shipped) -> None:
    await vault.store("s3cret")
    await _rotate(vault)
    await _finished(vault)
    events: list[dict[str, Any]] = []
    while "master_key_rotation_finished" not in [event["event"] for event in events]:
        events = await shipped("admin_events")
    (started,) = (event for event in events if event["event"] == "master_key_rotation_started")
    finished = events[-1]
    assert (started["actor"], started["before"], started["after"]) == ("ada", OLD.id, NEW.id)
    assert (finished["actor"], finished["before"], finished["after"]) == ("lockgate", OLD.id, NEW.id)


async def _finished(vault: Vault) -> None:
    while not (await vault.api.get(ROTATION)).json()["complete"]:
        pass


async def test_a_key_that_is_not_configured_is_refused(vault: Vault) -> None:
    answer = await vault.api.put(ROTATION, json={"key": "local:0000000000000000"})
    assert answer.status_code == 400
    assert "LOCKGATE_CREDENTIALS_MORE_KEYS" in answer.json()["detail"]


async def test_a_replica_that_does_not_have_the_key_is_named_and_nothing_begins(vault: Vault) -> None:
    async def other(_: WhoKnows) -> Known:
        return Known(replica="replica-2", keys=[OLD.id])

    await vault.control.bus.serve(WHO_KNOWS, WhoKnows, other, everyone=True)
    await vault.control.bus.client.flush()
    answer = await vault.api.put(ROTATION, json={"key": NEW.id})
    assert answer.status_code == 409
    assert "replica-2" in answer.json()["detail"]
    assert (await vault.api.get(ROTATION)).json()["key"] == OLD.id


async def test_a_record_that_was_tampered_with_does_not_hold_up_the_others(
    vault: Vault, settings: CredentialsSettings
) -> None:
    await vault.know(server("other"))
    await vault.store("for-wiki")
    await vault.store("for-other", "other")
    connection = sqlite3.connect(settings.data_dir / "credentials.db")
    with connection:
        connection.execute("UPDATE accounts SET wrapped_key = x'00' WHERE slug = 'wiki'")
    connection.close()
    await _rotate(vault)

    def the_others_went_over() -> bool:
        return bool(vault.app.state.parts.store.master_keys.state().done == 3)

    await eventually(the_others_went_over)
    assert await vault.open("other") == {"x-api-key": "for-other"}
    state = (await vault.api.get(ROTATION)).json()
    assert (state["complete"], state["others"]) == (False, [OLD.id])


async def test_a_record_changed_meanwhile_is_not_overwritten(vault: Vault) -> None:
    """Compare-and-swap: what was read before a change is written by nobody after it."""
    await vault.store("old")
    store: CredentialStore = vault.app.state.parts.store
    store.master_keys.use(NEW.id)
    read_before = store.master_keys.pending(10)
    await vault.store("new")
    assert store.master_keys.rewrap(read_before) == 1  # the provider; the account is another now
    assert await vault.open() == {"x-api-key": "new"}


async def test_a_kms_that_is_away_interrupts_it_and_it_goes_on_later(vault: Vault) -> None:
    await vault.store("s3cret")
    store: CredentialStore = vault.app.state.parts.store
    store.master_keys.use(NEW.id)

    class Away(LocalKey):
        def wrap(self, data_key: bytes, name: bytes) -> bytes:
            raise MasterKeyUnavailable

    present = store.database.vault
    store.database.vault = Envelopes({OLD.id: OLD, NEW.id: Away(NEW.raw)})
    with pytest.raises(Unavailable):
        store.master_keys.rewrap(store.master_keys.pending(10))
    store.database.vault = present
    assert store.master_keys.rewrap(store.master_keys.pending(10)) == 2
    assert store.master_keys.state().complete is False  # the key itself is still known
    assert store.master_keys.retire() == [OLD.id]


async def test_swapping_wrapped_keys_of_two_records_opens_neither(
    vault: Vault, settings: CredentialsSettings
) -> None:
    await vault.know(server("other"))
    await vault.store("for-wiki")
    await vault.store("for-other", "other")
    connection = sqlite3.connect(settings.data_dir / "credentials.db")
    with connection:
        rows = dict(connection.execute("SELECT slug, wrapped_key FROM accounts"))
        for slug, other in (("wiki", "other"), ("other", "wiki")):
            connection.execute("UPDATE accounts SET wrapped_key = ? WHERE slug = ?", (rows[other], slug))
    connection.close()
    store: CredentialStore = vault.app.state.parts.store
    for account in store.accounts.all():
        with pytest.raises(CredentialUnreadable):
            store.accounts.open(account.id)


# -- the page ---------------------------------------------------------------------------------------


async def test_the_page_offers_the_other_keys_and_follows_the_progress(vault: Vault) -> None:
    await vault.store("s3cret")
    page = await vault.browser.get("/credentials/master-key")
    assert f"Go over to {NEW.id}" in page.text
    assert f"Go over to {OLD.id}" not in page.text
    assert _text(NEW) not in page.text
    answer = await vault.browser.post("/credentials/master-key", data={"key": NEW.id})
    assert answer.status_code == 303
    await _finished(vault)
    assert "2 of 2 are wrapped by it (100 %)" in (await vault.browser.get("/credentials/master-key")).text


async def test_the_page_says_what_is_wrong(vault: Vault) -> None:
    answer = await vault.browser.post("/credentials/master-key", data={"key": "nonsense"})
    assert answer.status_code == 400
    assert "There is no such master key here" in answer.text
