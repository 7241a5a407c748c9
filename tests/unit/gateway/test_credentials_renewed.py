"""A credential that the upstream refuses is renewed once, and the call made again; where that does not help,
the caller is told where to connect. Keys in the query."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest

from libs.common.control.entries import CredentialVersion, Server, origin_of
from libs.common.errors import Conflict
from libs.common.requests import (
    OPEN_CREDENTIAL,
    REFRESH_CREDENTIAL,
    Injection,
    OpenCredential,
    RefreshCredential,
    RefreshedCredential,
    SealedCredential,
    credential_context,
)
from libs.common.sealed import seal
from tests.unit.gateway.conftest import PUBLIC_URL, Exchange, House, token

BEARER = token(audience=f"{PUBLIC_URL}/mcp/keyed")
PAGE = f"{PUBLIC_URL}/credentials/servers/keyed"


class NotRenewable(Conflict):
    type = "not-renewable"


@dataclass
class Vault:
    """A credentials service whose credential is `token-<version>`, placed as `place` says."""

    house: House
    place: Callable[[str], Injection]
    renewable: bool = True
    version: int = 1
    refreshes: list[int] = field(default_factory=list)

    async def put(self, **more: Any) -> None:
        entry = CredentialVersion(
            version=self.version,
            slug="keyed",
            user="organization",
            origin=origin_of(self.house.upstream.url),
            **more,
        )
        await self.house.put(entry)

    async def open(self, query: OpenCredential) -> SealedCredential:
        secret = msgspec.json.encode(self.place(f"token-{self.version}"))
        context = credential_context(query.slug, query.user, self.version)
        return SealedCredential(version=self.version, box=seal(secret, query.public_key, context))

    async def refresh(self, query: RefreshCredential) -> RefreshedCredential:
        self.refreshes.append(query.version)
        if not self.renewable:
            raise NotRenewable
        if query.version == self.version:
            self.version += 1
            await self.put()
        return RefreshedCredential(version=self.version)


MakeVault = Callable[..., Awaitable[Vault]]


@pytest.fixture
async def vault(house: House) -> AsyncIterator[MakeVault]:
    async def make(place: Callable[[str], Injection], *, renewable: bool = True) -> Vault:
        made = Vault(house, place, renewable)
        await house.bus.serve(OPEN_CREDENTIAL, OpenCredential, made.open)
        await house.bus.serve(REFRESH_CREDENTIAL, RefreshCredential, made.refresh)
        await house.bus.client.flush()
        if renewable:  # keys are not
            url = house.upstream.url
            await house.put(Server(version=2, slug="keyed", name="Keyed", url=url, auth="oauth"))
        await made.put()
        return made

    yield make


def bearer(secret: str) -> Injection:
    return Injection(headers={"Authorization": f"Bearer {secret}"})


def only_takes(*tokens: str) -> Callable[[Exchange], Awaitable[None]]:
    """An upstream that answers 401 to other tokens."""

    async def script(exchange: Exchange) -> None:
        good = any(exchange.headers.get("authorization") == f"Bearer {each}" for each in tokens)
        body = b'{"jsonrpc":"2.0","id":1,"result":{"content":[]}}' if good else b"{}"
        await exchange.answer(body, 200 if good else 401)

    return script


async def test_a_refused_token_is_renewed_and_the_call_succeeds(house: House, vault: MakeVault) -> None:
    made = await vault(bearer)
    house.upstream.script = only_takes("token-2")
    response = await house.call(bearer=BEARER, server="keyed")
    assert "result" in response.json()
    assert made.refreshes == [1]
    assert (await house.record())["status"] == "ok"
    await house.call(bearer=BEARER, server="keyed")
    assert made.refreshes == [1]


async def test_many_calls_with_a_refused_token_renew_it_once(house: House, vault: MakeVault) -> None:
    made = await vault(bearer)
    house.upstream.script = only_takes("token-2")
    calls = [house.call(bearer=BEARER, server="keyed") for _ in range(4)]
    answers = [response.json() for response in await asyncio.gather(*calls)]
    assert [answer for answer in answers if "result" not in answer] == []
    assert made.version == 2
    assert set(made.refreshes) == {1}


async def test_a_call_is_not_made_a_third_time(house: House, vault: MakeVault) -> None:
    made = await vault(bearer)
    house.upstream.script = only_takes()
    response = await house.call(bearer=BEARER, server="keyed")
    assert response.json()["error"]["data"]["reason"] == "upstream_unauthorized"
    assert made.refreshes == [1]
    assert len(house.upstream.seen) == 2


async def test_a_refused_key_is_not_renewed_and_who_has_it_is_told_where_to_connect(
    house: House, vault: MakeVault
) -> None:
    made = await vault(bearer, renewable=False)
    house.upstream.script = only_takes()
    error = (await house.call(bearer=BEARER, server="keyed")).json()["error"]
    assert PAGE in error["message"]
    assert error["data"]["url"] == PAGE
    assert len(house.upstream.seen) == 1
    assert made.refreshes == []


async def test_a_missing_credential_and_one_that_is_no_longer_good_name_the_page(
    house: House, vault: MakeVault
) -> None:
    missing = (await house.call(bearer=BEARER, server="keyed")).json()["error"]
    assert (missing["data"]["reason"], missing["data"]["url"]) == ("credential_missing", PAGE)
    made = await vault(bearer)
    made.version = 2
    await made.put(attention=True)
    attention = (await house.call(bearer=BEARER, server="keyed")).json()["error"]
    assert (attention["data"]["reason"], attention["data"]["url"]) == ("credential_attention", PAGE)
    assert PAGE in attention["message"]
    assert not house.upstream.seen


async def test_a_key_in_the_query_reaches_the_upstream_and_nobody_else(
    house: House, vault: MakeVault
) -> None:
    secret = "k&y #1 sécret"
    await vault(lambda _: Injection(query={"api key": secret}))

    async def script(exchange: Exchange) -> None:
        body = f'{{"jsonrpc":"2.0","id":1,"result":{{"seen":"{exchange.target}"}}}}'
        await exchange.answer(body.encode())

    house.upstream.script = script
    response = await house.call(bearer=BEARER, server="keyed")
    assert house.upstream.seen[-1].target.endswith("?api%20key=k%26y%20%231%20s%C3%A9cret")
    assert "k%26y" not in response.text
    assert "k%26y" not in str(house.records())
