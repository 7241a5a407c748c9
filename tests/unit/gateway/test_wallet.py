"""Credentials held in memory: which version is used when the log and an answer differ."""

from typing import Any, cast

import msgspec
import pytest

from libs.common.bus import Bus
from libs.common.control.entries import CredentialVersion, Server, key_of
from libs.common.control.tables import Tables
from libs.common.requests import Injection, OpenCredential, SealedCredential, credential_context
from libs.common.sealed import seal
from services.gateway.credentials import Wallet

KEY = "demo.alice"


class Vault:
    """Answers with the version that the test says, whatever the log says."""

    version = 1

    async def request(self, _: str, query: OpenCredential, __: Any, timeout: float) -> SealedCredential:
        secret = msgspec.json.encode(Injection(headers={"X-Api-Key": f"secret {self.version}"}))
        context = credential_context(query.slug, query.user, self.version)
        return SealedCredential(version=self.version, box=seal(secret, query.public_key, context))


def named(tables: Tables, version: int) -> CredentialVersion:
    """The log names this version from now on."""
    entry = CredentialVersion(version=version, slug="demo", user="alice", origin="http://u.example:80")
    tables.apply(key_of(entry), msgspec.json.encode(entry))
    return entry


@pytest.fixture
def tables() -> Tables:
    tables = Tables()
    server = Server(version=1, slug="demo", name="Demo", url="http://u.example/mcp", auth="api_key")
    tables.apply(key_of(server), msgspec.json.encode(server))
    named(tables, 1)
    return tables


async def test_the_version_that_the_log_names_is_held(tables: Tables) -> None:
    wallet = Wallet(cast(Bus, Vault()), tables)
    assert wallet.held(KEY) is None
    opened = await wallet.open(KEY)
    assert wallet.held(KEY) is opened
    assert opened.headers == [(b"x-api-key", b"secret 1")]


async def test_an_older_version_that_came_after_the_log_had_moved_on_is_not_held(tables: Tables) -> None:
    """The answer was on its way when the credential changed, so `forget` came before it."""
    vault = Vault()
    wallet = Wallet(cast(Bus, vault), tables)
    entry = named(tables, 2)
    wallet.forget(key_of(entry), msgspec.json.encode(entry), 7)
    await wallet.open(KEY)
    assert wallet.held(KEY) is None, "the next call asks again"
    vault.version = 2
    opened = await wallet.open(KEY)
    assert wallet.held(KEY) is opened


async def test_a_newer_version_than_the_log_has_said_is_not_held_until_it_does(tables: Tables) -> None:
    vault = Vault()
    vault.version = 2
    wallet = Wallet(cast(Bus, vault), tables)
    opened = await wallet.open(KEY)
    assert wallet.held(KEY) is None
    named(tables, 2)
    assert wallet.held(KEY) is opened


async def test_a_removed_credential_is_not_held(tables: Tables) -> None:
    wallet = Wallet(cast(Bus, Vault()), tables)
    await wallet.open(KEY)
    tables.apply(f"credential.{KEY}", None)
    assert wallet.held(KEY) is None
