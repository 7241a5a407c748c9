"""What a change does to the next call and to the one in flight; credentials on the way."""

import asyncio
import os
from collections.abc import Callable

import pytest

from libs.common.control.entries import (
    AnyEntry,
    CredentialVersion,
    Group,
    Org,
    Revoked,
    Server,
    ServerAccess,
    User,
    origin_of,
)
from libs.common.requests import OpenCredential
from tests.conftest import eventually
from tests.unit.gateway.conftest import PUBLIC_URL, Exchange, House, token


async def test_the_credential_is_added_and_the_callers_own_header_of_that_name_is_not(
    house: House, vault: list[OpenCredential]
) -> None:
    bearer = token(audience=f"{PUBLIC_URL}/mcp/keyed")
    for _ in range(2):
        response = await house.call(bearer=bearer, server="keyed", x_api_key="mine")
        assert response.status_code == 200
        assert "s3cret" not in str(response.headers) + response.text
    assert [seen.headers["x-api-key"] for seen in house.upstream.seen] == ["s3cret-1", "s3cret-1"]
    assert len(vault) == 1  # the second call found it in memory
    assert "s3cret" not in str(house.records())

    await house.put(
        CredentialVersion(version=2, slug="keyed", user="organization", origin=origin_of(house.upstream.url))
    )
    await house.call(bearer=bearer, server="keyed")
    assert house.upstream.seen[-1].headers["x-api-key"] == "s3cret-2"


async def test_an_upstream_that_repeats_the_key_does_not_reveal_it(
    house: House, vault: list[OpenCredential]
) -> None:
    async def script(exchange: Exchange) -> None:
        key = exchange.headers["x-api-key"].encode()
        await exchange.open_stream(x_seen=key.decode())
        answer = b'data: {"jsonrpc":"2.0","id":1,"result":{"content":[{"text":"got ' + key + b'"}]}}\n\n'
        middle = answer.index(key) + 3
        await exchange.event(answer[:middle])  # cut in the middle of the key
        await exchange.event(answer[middle:], last=True)

    house.upstream.script = script
    response = await house.call(bearer=token(audience=f"{PUBLIC_URL}/mcp/keyed"), server="keyed")
    assert "got ********" in response.text
    assert "s3cret" not in response.text + str(response.headers)
    record = await house.record()
    assert "s3cret" not in str(record)
    assert "got ********" in record["output"]


async def test_a_call_without_its_credential_is_refused(house: House) -> None:
    response = await house.call(bearer=token(audience=f"{PUBLIC_URL}/mcp/keyed"), server="keyed")
    assert response.json()["error"]["data"]["reason"] == "credential_missing"
    await house.put(
        CredentialVersion(version=1, slug="keyed", user="organization", origin=origin_of(house.upstream.url))
    )
    response = await house.call(bearer=token(audience=f"{PUBLIC_URL}/mcp/keyed"), server="keyed")
    assert response.status_code == 503  # nobody holds it out to us
    assert not house.upstream.seen


GROUP = Group(version=2, id="default", name="Everybody", servers={})
ENDINGS: dict[str, tuple[Callable[[str], AnyEntry], str]] = {
    "the server is switched off": (
        lambda url: Server(version=2, slug="demo", name="Demo", url=url, enabled=False, reason="audit"),
        "server_disabled",
    ),
    "the organization is switched off": (lambda url: Org(version=1, enabled=False), "organization_disabled"),
    "the group loses the server": (lambda url: GROUP, "server_not_allowed"),
    "the group loses the tool": (
        lambda url: Group(
            version=2,
            id="default",
            name="E",
            servers={"demo": ServerAccess(tools={"echo": "deny"})},
        ),
        "tool_denied",
    ),
    "the grant is revoked": (lambda url: Revoked(version=1, grant="grant-alice", at=1), "token_revoked"),
    "the user is deactivated": (
        lambda url: User(version=2, id="alice", email="alice@x.example", active=False),
        "user_inactive",
    ),
}


@pytest.mark.parametrize("name", ENDINGS)
async def test_a_change_refuses_the_next_call_and_ends_the_one_in_flight(house: House, name: str) -> None:
    make, reason = ENDINGS[name]
    started = asyncio.Event()

    async def script(exchange: Exchange) -> None:
        started.set()
        await exchange.until_gone()

    house.upstream.script = script
    running = asyncio.create_task(house.call())
    await asyncio.wait_for(started.wait(), 5)

    await house.put(make(house.upstream.url))

    ended = await asyncio.wait_for(running, 5)
    assert ended.status_code in {200, 401, 404}
    assert "error" in ended.json()
    await asyncio.wait_for(house.upstream.seen[0].gone.wait(), 5)
    record = await house.record()
    assert (record["status"], record["reason"]) == ("denied", reason)

    response = await house.call()
    assert "error" in response.json()
    assert len(house.upstream.seen) == 1


async def test_what_is_switched_on_again_works_again(house: House) -> None:
    server = Server(
        version=2, slug="demo", name="Demo", url=house.upstream.url, enabled=False, reason="audit"
    )
    await house.put(server)
    response = await house.call()
    assert response.json()["error"]["message"] == "Lockgate: demo: it is off: audit"
    await house.put(Server(version=3, slug="demo", name="Demo", url=house.upstream.url))
    assert "result" in (await house.call()).json()


async def test_a_replica_without_a_lease_admits_nothing(house: House, nats: object) -> None:
    nats.stop()  # type: ignore[attr-defined]
    await eventually(lambda: not house.gateway.fresh)
    response = await house.call()
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert not house.upstream.seen
    assert (await house.record())["reason"] == "lease_expired"
    assert (await house.client.get(f"{house.url}/readyz")).status_code == 503
    nats.start()  # type: ignore[attr-defined]


async def test_a_journal_that_cannot_be_written_refuses_the_call(house: House) -> None:
    real, house.gateway.journal._fd = house.gateway.journal._fd, os.open("/dev/full", os.O_WRONLY)
    response = await house.call()
    assert response.status_code == 503
    assert response.json()["error"]["data"]["reason"] == "journal_unavailable"
    assert not house.upstream.seen
    house.gateway.journal._fd = real
    assert (await house.call()).status_code == 200
    await eventually(lambda: len(house.records()) == 2)
    assert [(r["seq"], r["status"]) for r in house.records()] == [(1, "denied"), (2, "ok")]


async def test_a_long_answer_is_cut_in_the_record_and_whole_for_the_caller(house: House) -> None:
    async def script(exchange: Exchange) -> None:
        await exchange.result({"content": [{"type": "text", "text": "é" * 10_000}]})

    house.upstream.script = script
    response = await house.call()
    assert response.json()["result"]["content"][0]["text"] == "é" * 10_000
    record = await house.record()
    assert len(record["output"]) <= 4096
    assert record["output_bytes"] > 10_000
    assert len(record["output_sha256"]) == 64
