"""The vault: what is in the database file, and what happens to those who change it."""

import base64
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from libs.common.bus import Refused
from services.credentials.domain import Account, CredentialUnreadable, Draft, Owner
from services.credentials.masterkey.local import LocalKey
from services.credentials.settings import CredentialsSettings
from services.credentials.store.rows import name_of
from services.credentials.vault import Envelope, MasterKeyMissing
from services.credentials.vault import Vault as Envelopes
from tests.unit.credentials.conftest import Vault, server

RECORD = Account(
    id="01j",
    owner=Owner("wiki", "organization"),
    kind="api_key",
    origin="https://wiki.example.com:443",
    version=9,
    sealed_version=7,
    created_at="2026-11-03T10:11:12.000000Z",
    created_by="ada@example.com",
    changed_at="2026-11-03T10:11:12.000000Z",
    changed_by="ada@example.com",
)
KEY = LocalKey(bytes(32))
VAULT = Envelopes({KEY.id: KEY})
NAME = name_of(RECORD.id)


def _seal(record: Account = RECORD) -> Envelope:
    return VAULT.new_data_key(name_of(record.id), KEY.id).seal(b"s3cret", record.identity())


def _with(envelope: Envelope, part: str, octets: bytes) -> Envelope:
    parts = {"wrapped_key": envelope.wrapped_key, "box": envelope.box, part: octets}
    return Envelope(envelope.key_id, **parts)


def _open(envelope: Envelope, record: Account = RECORD, vault: Envelopes = VAULT) -> bytes:
    return vault.open(envelope, name_of(record.id), record.identity())


def _sql(settings: CredentialsSettings, statement: str, *values: object) -> list[tuple[object, ...]]:
    with sqlite3.connect(settings.data_dir / "credentials.db") as connection:
        rows = connection.execute(statement, values).fetchall()
    connection.close()
    return rows


def test_what_was_sealed_opens() -> None:
    assert _open(_seal()) == b"s3cret"


def test_sealing_twice_gives_different_envelopes() -> None:
    assert _seal() != _seal()


@pytest.mark.parametrize(
    "change",
    [
        {"id": "01k"},
        {"owner": Owner("other", "organization")},
        {"owner": Owner("wiki", "ada")},
        {"kind": "oauth"},
        {"origin": "http://wiki.example.com:80"},
        {"origin": "https://evil.example:443"},
        {"sealed_version": 8},
    ],
)
def test_an_envelope_opens_only_in_its_own_record(change: dict[str, Any]) -> None:
    with pytest.raises(CredentialUnreadable):
        _open(_seal(), replace(RECORD, **change))


def test_a_choice_does_not_need_the_secret_sealed_anew() -> None:
    assert _open(_seal(), replace(RECORD, version=99, chosen=False, label="Work")) == b"s3cret"


@pytest.mark.parametrize("part", ["wrapped_key", "box"])
def test_every_changed_byte_is_noticed(part: str) -> None:
    envelope = _seal()
    octets: bytes = getattr(envelope, part)
    for index in range(len(octets)):
        changed = bytearray(octets)
        changed[index] ^= 1
        with pytest.raises(CredentialUnreadable):
            _open(_with(envelope, part, bytes(changed)))


@pytest.mark.parametrize("part", ["wrapped_key", "box"])
@pytest.mark.parametrize("length", [0, 1, 12, 20])
def test_a_cut_envelope_is_refused(part: str, length: int) -> None:
    envelope = _seal()
    with pytest.raises(CredentialUnreadable):
        _open(_with(envelope, part, getattr(envelope, part)[:length]))


def test_parts_of_two_envelopes_of_one_record_do_not_open_together() -> None:
    one, other = _seal(), _seal()
    with pytest.raises(CredentialUnreadable):
        _open(replace(one, box=other.box))


def test_another_master_key_under_the_same_id_does_not_open_it() -> None:
    with pytest.raises(CredentialUnreadable):
        _open(_seal(), vault=Envelopes({KEY.id: LocalKey(b"x" * 32)}))


def test_a_master_key_that_is_not_there_is_named() -> None:
    with pytest.raises(MasterKeyMissing, match=KEY.id):
        _open(_seal(), vault=Envelopes({}))


def test_no_representation_shows_a_secret() -> None:
    data_key = VAULT.new_data_key(NAME, KEY.id)
    draft = Draft(kind="api_key", secret=b"s3cret", origin="")
    assert repr(data_key.plain) not in repr(data_key)
    assert "s3cret" not in repr(draft)
    assert repr(bytes(32)) not in repr(KEY)


async def test_swapped_rows_are_refused(vault: Vault, settings: CredentialsSettings) -> None:
    await vault.control.put(server("other"))
    await vault.store("for-wiki")
    await vault.store("for-other", "other")
    other = _sql(settings, "SELECT wrapped_key, box FROM accounts WHERE slug = 'other'")[0]
    _sql(settings, "UPDATE accounts SET wrapped_key = ?, box = ? WHERE slug = 'wiki'", *other)
    with pytest.raises(Refused) as refused:
        await vault.open()
    assert refused.value.reason == "credential-unreadable"
    assert await vault.open("other") == {"x-api-key": "for-other"}


async def test_an_old_row_put_back_is_refused_at_the_new_version(
    vault: Vault, settings: CredentialsSettings
) -> None:
    await vault.store("old-key")
    old = _sql(settings, "SELECT wrapped_key, box FROM accounts")[0]
    await vault.store("new-key")
    _sql(settings, "UPDATE accounts SET wrapped_key = ?, box = ?", *old)
    with pytest.raises(Refused):
        await vault.open()


async def test_a_credential_given_to_another_person_is_refused(
    vault: Vault, settings: CredentialsSettings
) -> None:
    await vault.store("s3cret")
    _sql(settings, "UPDATE accounts SET user_id = 'eve'")
    with pytest.raises(Refused) as refused:
        await vault.inject(user="eve")
    assert refused.value.reason == "credential-unreadable"


@pytest.mark.parametrize(
    "change",
    [
        """layout = replace(layout, 'X-Api-Key', 'X-Echo')""",
        """layout = replace(layout, '"header"', '"query"')""",
        "layout = ''",
        "settings = '{}'",
        "kind = 'oauth'",
        "version = version + 1",
    ],
)
async def test_a_changed_provider_is_refused(
    vault: Vault, settings: CredentialsSettings, change: str
) -> None:
    await vault.store("s3cret")
    _sql(settings, f"UPDATE providers SET {change}")
    with pytest.raises(Refused) as refused:
        await vault.open()
    assert refused.value.reason == "credential-unreadable"


async def test_a_changed_origin_is_refused(vault: Vault, settings: CredentialsSettings) -> None:
    await vault.store("s3cret")
    _sql(settings, "UPDATE accounts SET origin = 'https://evil.example:443'")
    await vault.move("https://evil.example/mcp")
    with pytest.raises(Refused) as refused:
        await vault.open()
    assert refused.value.reason == "credential-unreadable"


async def test_a_credential_that_cannot_be_opened_can_be_stored_anew(
    vault: Vault, settings: CredentialsSettings
) -> None:
    await vault.store("s3cret")
    _sql(settings, "UPDATE accounts SET box = x'00'")
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
