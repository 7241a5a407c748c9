"""The vault: what is in the database file, and what happens to those who change it."""

import base64
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from libs.common.bus import Refused
from services.credentials.domain import Credential, CredentialUnreadable, Owner, Placement, Secret
from services.credentials.settings import CredentialsSettings
from services.credentials.vault import Vault as Envelopes
from tests.unit.credentials.conftest import Vault, server

PLACEMENT = Placement("X-Api-Key", "{key}")
RECORD = Credential(
    owner=Owner("wiki", "organization"),
    placement=PLACEMENT,
    origin="https://wiki.example.com:443",
    version=7,
    changed_at="2026-11-03T10:11:12.000000Z",
    changed_by="ada@example.com",
)
SECRET = Secret(PLACEMENT, "s3cret")


def _sql(settings: CredentialsSettings, statement: str, *values: object) -> list[tuple[object, ...]]:
    with sqlite3.connect(settings.data_dir / "credentials.db") as connection:
        rows = connection.execute(statement, values).fetchall()
    connection.close()
    return rows


def test_what_was_sealed_opens() -> None:
    vault = Envelopes(bytes(32))
    assert vault.open(vault.seal("s3cret", RECORD), RECORD) == SECRET


def test_sealing_twice_gives_different_envelopes() -> None:
    vault = Envelopes(bytes(32))
    assert vault.seal("s3cret", RECORD) != vault.seal("s3cret", RECORD)


@pytest.mark.parametrize(
    "change",
    [
        {"owner": Owner("other", "organization")},
        {"owner": Owner("wiki", "ada")},
        {"placement": Placement("X-Other", "{key}")},
        {"placement": Placement("X-Api-Key", "leak {key}")},
        {"placement": Placement("", "{key}", "X_API_KEY")},
        {"origin": "http://wiki.example.com:80"},
        {"origin": "https://evil.example:443"},
        {"version": 8},
    ],
)
def test_an_envelope_opens_only_in_its_own_record(change: dict[str, Any]) -> None:
    vault = Envelopes(bytes(32))
    with pytest.raises(CredentialUnreadable):
        vault.open(vault.seal("s3cret", RECORD), replace(RECORD, **change))


def test_every_changed_byte_is_noticed() -> None:
    vault = Envelopes(bytes(32))
    envelope = vault.seal("s3cret", RECORD)
    for index in range(len(envelope)):
        changed = bytearray(envelope)
        changed[index] ^= 1
        with pytest.raises(CredentialUnreadable):
            vault.open(bytes(changed), RECORD)


@pytest.mark.parametrize("length", [0, 1, 12, 60, 72, 80])
def test_a_cut_envelope_is_refused(length: int) -> None:
    vault = Envelopes(bytes(32))
    with pytest.raises(CredentialUnreadable):
        vault.open(vault.seal("s3cret", RECORD)[:length], RECORD)


def test_another_master_key_does_not_open_it() -> None:
    with pytest.raises(CredentialUnreadable):
        Envelopes(b"x" * 32).open(Envelopes(bytes(32)).seal("s3cret", RECORD), RECORD)


def test_the_representation_of_a_secret_does_not_show_the_key() -> None:
    assert "s3cret" not in repr(SECRET)


async def test_swapped_rows_are_refused(vault: Vault, settings: CredentialsSettings) -> None:
    await vault.control.put(server("other"))
    await vault.store("for-wiki")
    await vault.store("for-other", "other")
    (envelope,) = _sql(settings, "SELECT envelope FROM credentials WHERE slug = 'other'")[0]
    _sql(settings, "UPDATE credentials SET envelope = ? WHERE slug = 'wiki'", envelope)
    with pytest.raises(Refused) as refused:
        await vault.open()
    assert refused.value.reason == "credential-unreadable"
    assert await vault.open("other") == {"x-api-key": "for-other"}


async def test_an_old_row_put_back_is_refused_at_the_new_version(
    vault: Vault, settings: CredentialsSettings
) -> None:
    await vault.store("old-key")
    (old,) = _sql(settings, "SELECT envelope FROM credentials")[0]
    await vault.store("new-key")
    _sql(settings, "UPDATE credentials SET envelope = ?", old)
    with pytest.raises(Refused):
        await vault.open()


async def test_a_changed_placement_is_refused(vault: Vault, settings: CredentialsSettings) -> None:
    await vault.store("s3cret")
    _sql(settings, "UPDATE credentials SET header = 'X-Echo'")
    with pytest.raises(Refused):
        await vault.open()


async def test_a_changed_origin_is_refused(vault: Vault, settings: CredentialsSettings) -> None:
    await vault.store("s3cret")
    _sql(settings, "UPDATE credentials SET origin = 'https://evil.example:443'")
    await vault.move("https://evil.example/mcp")
    with pytest.raises(Refused) as refused:
        await vault.open()
    assert refused.value.reason == "credential-unreadable"


async def test_a_credential_that_cannot_be_opened_can_be_stored_anew(
    vault: Vault, settings: CredentialsSettings
) -> None:
    await vault.store("s3cret")
    _sql(settings, "UPDATE credentials SET envelope = x'00'")
    await vault.store("s3cret")
    assert await vault.open() == {"x-api-key": "s3cret"}


async def test_no_file_of_the_service_holds_the_key(vault: Vault, settings: CredentialsSettings) -> None:
    key = "needle-7f3a9c2b1d"
    await vault.store(key, header="Authorization")
    await vault.open()
    forms = [key.encode(), base64.b64encode(key.encode())[:-4], key.encode().hex().encode()]
    files = [path for path in settings.data_dir.rglob("*") if path.is_file()]
    assert any(path.name.startswith("credentials.db") for path in files)
    assert any("credentials-journal" in str(path) for path in files)
    for path in files:
        assert not any(form in Path(path).read_bytes() for form in forms), path
