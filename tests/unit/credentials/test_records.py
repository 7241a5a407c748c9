"""Every store, read and delete leaves an admin event; no event, log line or page holds the key."""

import json

import pytest

from tests.unit.conftest import Shipped
from tests.unit.credentials.conftest import Vault
from tests.unit.records import admin_events

KEY = "needle-7f3a9c2b1d"


async def test_store_read_and_delete_are_recorded(vault: Vault, shipped: Shipped) -> None:
    account = await vault.store(KEY)
    await vault.open()
    await vault.api.delete("/api/credentials/wiki/organization")
    placed, stored, read, deleted = await admin_events(shipped, 4)
    assert (placed["event"], placed["subject"]) == ("provider_changed", "provider.wiki")
    assert json.loads(placed["after"])["layout"]["placements"] == [
        {"into": "header", "name": "X-Api-Key", "template": "{key}"}
    ]
    assert {event["subject"] for event in (stored, read, deleted)} == {"credential.wiki.organization"}
    assert (stored["event"], stored["actor"], stored["before"]) == ("credential_stored", "ada", "")
    assert json.loads(stored["after"]) == {
        "account": account["id"],
        "kind": "api_key",
        "label": "",
        "origin": "https://wiki.example.com:443",
        "version": account["version"],
        "state": "connected",
        "chosen": True,
    }
    assert (read["event"], read["actor"]) == ("credential_read", "gateway")
    assert (deleted["event"], deleted["after"]) == ("credential_deleted", "")
    assert json.loads(deleted["before"])[0]["account"] == account["id"]


async def test_a_read_names_who_asked(vault: Vault, shipped: Shipped) -> None:
    await vault.store(KEY)
    await vault.open(asker="policy")
    *_, read = await admin_events(shipped, 3)
    assert (read["event"], read["actor"]) == ("credential_read", "policy")


async def test_storing_the_same_again_is_not_recorded(vault: Vault, shipped: Shipped) -> None:
    await vault.store(KEY)
    await vault.store(KEY)
    await vault.open()
    events = await admin_events(shipped, 3)
    assert [event["event"] for event in events] == [
        "provider_changed",
        "credential_stored",
        "credential_read",
    ]


async def test_no_event_and_no_log_line_holds_the_key(
    vault: Vault, shipped: Shipped, capfd: pytest.CaptureFixture[str]
) -> None:
    await vault.store(KEY, header="Authorization")
    await vault.open()
    await vault.store(KEY + "-2", header="Authorization")
    bad = {"header": "Host", "key": KEY}
    await vault.api.put("/api/credentials/wiki/organization", json=bad)
    assert KEY not in json.dumps(await admin_events(shipped, 3))
    said = capfd.readouterr()
    assert KEY not in said.out + said.err
