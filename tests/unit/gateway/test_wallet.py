"""Credentials held in memory: which version is used when the log and an answer differ."""

import time
from typing import Any, cast

import msgspec
import pytest

from libs.common.bus import Bus
from libs.common.control.entries import CredentialVersion, Server, key_of
from libs.common.control.tables import Tables
from libs.common.requests import (
    REFRESH_CREDENTIAL,
    Injection,
    OpenCredential,
    RefreshedCredential,
    SealedCredential,
    credential_context,
)
from libs.common.sealed import seal
from services.gateway.credentials import Wallet

KEY = "demo.alice"


class Vault:
    """Answers with the version that the test says, whatever the log says."""

    version = 1
    expires_at = 0.0

    async def request(self, _: str, query: OpenCredential, __: Any, timeout: float) -> SealedCredential:
        secret = msgspec.json.encode(Injection(headers={"X-Api-Key": f"secret {self.version}"}))
        context = credential_context(query.slug, query.user, self.version)
        box = seal(secret, query.public_key, context)
        return SealedCredential(version=self.version, box=box, expires_at=self.expires_at)


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


@pytest.mark.parametrize(("seconds", "held"), [(60.0, True), (-1.0, False)])
async def test_what_has_expired_is_asked_for_again(tables: Tables, seconds: float, held: bool) -> None:
    vault = Vault()
    vault.expires_at = time.time() + seconds
    wallet = Wallet(cast(Bus, vault), tables)
    await wallet.open(KEY)
    assert (wallet.held(KEY) is not None) == held


async def test_a_token_for_where_the_server_is_now_is_not_sent_to_where_it_was(tables: Tables) -> None:
    """It moved while its token was renewed."""

    def server_at(url: str) -> None:
        server = Server(version=2, slug="demo", name="Demo", url=url, auth="oauth")
        tables.apply(key_of(server), msgspec.json.encode(server))

    class Moving(Vault):
        moves = False

        async def request(self, subject: str, query: Any, reply: Any, timeout: float) -> Any:
            if subject != REFRESH_CREDENTIAL:
                return await super().request(subject, query, reply, timeout)
            self.version += 1
            if self.moves:
                server_at("http://elsewhere.example/mcp")
            return RefreshedCredential(version=self.version)

    server_at("http://u.example/mcp")
    vault = Moving()
    wallet = Wallet(cast(Bus, vault), tables)
    renewed = await wallet.renew(await wallet.open(KEY))
    assert renewed and renewed.version == 2
    vault.moves = True
    assert await wallet.renew(renewed) is None
