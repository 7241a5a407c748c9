"""Credentials through the API: a key goes in, gateways get it, nobody sees it."""

import secrets
from typing import Any

import pytest

from libs.common.bus import Refused
from libs.common.control.entries import ORGANIZATION, Replica
from libs.common.requests import OPEN_CREDENTIAL, OpenCredential, SealedCredential
from libs.common.sealed import NotForUs, Opener
from tests.unit.conftest import SignIn
from tests.unit.credentials.conftest import Vault, server

PATH = "/api/credentials/wiki/organization"


async def test_a_gateway_gets_the_header_with_the_key(vault: Vault) -> None:
    await vault.store("s3cret", header="X-Api-Key")
    assert await vault.open() == {"x-api-key": "s3cret"}


@pytest.mark.parametrize(
    ("header", "template", "sent"),
    [
        ("Authorization", None, "Bearer s3cret"),
        ("Authorization", "Token {key}", "Token s3cret"),
        ("X-Api-Key", None, "s3cret"),
        ("Cookie", "session={key}; theme=dark", "session=s3cret; theme=dark"),
    ],
)
async def test_the_key_is_placed_by_its_template(
    vault: Vault, header: str, template: str | None, sent: str
) -> None:
    await vault.store("s3cret", header=header, template=template)
    assert await vault.open() == {header.lower(): sent}


async def test_a_credential_is_listed_without_its_key(vault: Vault) -> None:
    key = secrets.token_hex()
    stored = await vault.store(key)
    answer = await vault.api.get("/api/credentials")
    listed = answer.json()["items"]
    assert [(item["slug"], item["user"], item["kind"]) for item in listed] == [
        ("wiki", ORGANIZATION, "api_key")
    ]
    assert listed[0]["changed_by"] == "ada@example.com"
    assert key not in answer.text
    assert key not in str(stored)


async def test_the_list_is_paged(vault: Vault) -> None:
    for slug in ("b", "a", "c"):
        await vault.control.put(server(slug))
        await vault.store("k", slug)
    first = (await vault.api.get("/api/credentials?limit=2")).json()
    rest = (await vault.api.get("/api/credentials", params={"after": first["next"]})).json()
    assert [item["slug"] for item in first["items"]] == ["a", "b"]
    assert [item["slug"] for item in rest["items"]] == ["c"]
    assert rest["next"] is None


async def test_the_control_log_says_that_it_exists_and_nothing_secret(vault: Vault) -> None:
    stored = await vault.store(secrets.token_hex())
    entry = await vault.control.get(f"credential.wiki.{ORGANIZATION}")
    assert entry == {
        "version": stored["version"],
        "slug": "wiki",
        "user": ORGANIZATION,
        "origin": "https://wiki.example.com:443",
        "attention": False,
    }


async def test_storing_the_same_again_changes_nothing(vault: Vault) -> None:
    first = await vault.store("s3cret")
    again = await vault.store("s3cret")
    assert (again["version"], again["changed_at"]) == (first["version"], first["changed_at"])
    assert again["receipt"]["revision"] == first["receipt"]["revision"] > 0


@pytest.mark.parametrize("change", [{"key": "other"}, {"header": "X-Other"}, {"template": "Key {key}"}])
async def test_every_change_makes_a_new_version(vault: Vault, change: dict[str, Any]) -> None:
    first = await vault.store("s3cret")
    body = {"header": "X-Api-Key", "key": "s3cret"} | change
    second = (await vault.api.put(PATH, json=body)).json()
    assert second["version"] > first["version"]


async def test_a_deleted_credential_is_gone_for_gateways_too(vault: Vault) -> None:
    await vault.store("s3cret")
    answer = await vault.api.delete(PATH)
    assert answer.status_code == 200
    assert await vault.control.get(f"credential.wiki.{ORGANIZATION}") is None
    with pytest.raises(Refused) as refused:
        await vault.open()
    assert refused.value.reason == "no-credential"
    assert (await vault.api.delete(PATH)).status_code == 200


async def test_a_credential_made_anew_has_a_version_that_no_gateway_has_seen(vault: Vault) -> None:
    first = await vault.store("s3cret")
    await vault.api.delete(PATH)
    assert (await vault.store("s3cret"))["version"] > first["version"]


@pytest.mark.parametrize(
    "header",
    ["Host", "content-length", "Transfer-Encoding", "Connection", "TE", "Mcp-Session-Id",
     "mcp-protocol-version", "Proxy-Authorization", "Accept", "Content-Type", "Origin", "X-Forwarded-For",
     "Bad Name", "X:Y", "", "Ä", "X-A\r\nHost"],
)  # fmt: skip
async def test_a_header_that_is_not_a_keys_is_refused(vault: Vault, header: str) -> None:
    answer = await vault.api.put(PATH, json={"header": header, "key": "s3cret"})
    assert answer.status_code == 400
    assert "header" in answer.json()["detail"]


@pytest.mark.parametrize(
    "key", ["", "a\r\nHost: x", "a\x00b", "a\nb", " a", "a\n", "schlüssel", "a\x7f", "x" * 17000]
)
async def test_a_key_that_a_header_cannot_carry_is_refused_and_not_repeated(vault: Vault, key: str) -> None:
    answer = await vault.api.put(PATH, json={"header": "X-Api-Key", "key": key})
    assert answer.status_code == 400
    assert len(key) < 3 or key not in answer.json()["detail"]


@pytest.mark.parametrize(
    "template", ["", "Bearer", "{key}{kee}", "Bearer {key}\r\nX: y", " {key}", "{key} " + "x" * 300]
)
async def test_a_template_that_is_none_is_refused(vault: Vault, template: str) -> None:
    body = {"header": "X-Api-Key", "template": template, "key": "s3cret"}
    assert (await vault.api.put(PATH, json=body)).status_code == 400


async def test_a_wrong_type_is_refused_without_repeating_the_key(vault: Vault) -> None:
    answer = await vault.api.put(PATH, json={"header": "X-Api-Key", "key": "s3cret", "extra": "s3cret"})
    assert answer.status_code == 400
    assert "s3cret" not in answer.text


async def test_a_key_for_a_server_that_is_not_there_is_refused(vault: Vault) -> None:
    body = {"header": "X-Api-Key", "key": "s3cret"}
    answer = await vault.api.put("/api/credentials/other/organization", json=body)
    assert answer.status_code == 404
    assert answer.json()["type"] == "urn:lockgate:error:unknown-server"


# -- the origin -------------------------------------------------------------------------------------

HOME = "https://wiki.example.com:443"
ELSEWHERE = [
    "https://evil.example/mcp",
    "http://wiki.example.com/mcp",
    "https://wiki.example.com:8443/mcp",
    "https://wiki.example.com.evil.example/mcp",
]


@pytest.mark.parametrize("url", ELSEWHERE)
async def test_a_key_does_not_follow_its_server_to_another_address(vault: Vault, url: str) -> None:
    await vault.store("s3cret")
    await vault.move(url)
    with pytest.raises(Refused) as refused:
        await vault.open()
    assert refused.value.reason == "credential-for-another-address"


async def test_a_key_does_not_follow_its_slug_to_a_server_made_anew(vault: Vault) -> None:
    await vault.store("s3cret")
    await vault.move(None)
    with pytest.raises(Refused):
        await vault.open()
    await vault.move("https://evil.example/mcp")
    with pytest.raises(Refused):
        await vault.open()


@pytest.mark.parametrize("url", ["https://wiki.example.com/v2/mcp", "https://WIKI.example.com:443/mcp?a=b"])
async def test_a_key_stays_with_a_server_that_moves_within_its_origin(vault: Vault, url: str) -> None:
    await vault.store("s3cret")
    await vault.move(url)
    assert await vault.open(origin=HOME) == {"x-api-key": "s3cret"}


async def test_the_same_key_stored_for_the_new_address_is_sent_there(vault: Vault) -> None:
    first = await vault.store("s3cret")
    await vault.move("https://new.example/mcp")
    second = await vault.store("s3cret")
    assert second["version"] > first["version"]
    assert (first["origin"], second["origin"]) == (HOME, "https://new.example:443")
    assert await vault.open() == {"x-api-key": "s3cret"}


async def test_an_asker_who_will_send_it_elsewhere_gets_nothing(vault: Vault) -> None:
    """Policy knows a new address before the control log does."""
    await vault.store("s3cret")
    with pytest.raises(Refused) as refused:
        await vault.open(origin="https://evil.example:443")
    assert refused.value.reason == "credential-for-another-address"


# -- the bus ----------------------------------------------------------------------------------------


async def test_only_the_asker_can_open_the_answer(vault: Vault) -> None:
    await vault.store("s3cret")
    asker, other = Opener(), Opener()
    query = OpenCredential(slug="wiki", user=ORGANIZATION, public_key=asker.public_key)
    sealed = await vault.control.bus.request(OPEN_CREDENTIAL, query, SealedCredential)
    assert "s3cret" not in sealed.box
    with pytest.raises(NotForUs):
        other.open(sealed.box, f"credential.wiki.{ORGANIZATION}.{sealed.version}")


@pytest.mark.parametrize("public_key", ["", "!!!", "AAAA", "A" * 44])
async def test_a_public_key_that_is_none_is_refused(vault: Vault, public_key: str) -> None:
    await vault.store("s3cret")
    query = OpenCredential(slug="wiki", user=ORGANIZATION, public_key=public_key)
    with pytest.raises(Refused) as refused:
        await vault.control.bus.request(OPEN_CREDENTIAL, query, SealedCredential)
    assert refused.value.reason == "bad-request"


# -- who may, and receipts --------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["member", "auditor"])
async def test_only_administrators_may(vault: Vault, sign_in: SignIn, role: str) -> None:
    other = await sign_in(role)
    follower = vault.app.state.follower
    await follower.wait_for(lambda: other.user.id in follower.tables.users, timeout=5)
    body = {"header": "X-Api-Key", "key": "s3cret"}
    assert (await vault.api.get("/api/credentials", headers=other.script)).status_code == 403
    assert (await vault.api.put(PATH, json=body, headers=other.script)).status_code == 403
    assert (await vault.api.delete(PATH, headers=other.script)).status_code == 403


async def test_nobody_may_without_signing_in(vault: Vault) -> None:
    assert (await vault.api.get("/api/credentials", headers={"Authorization": ""})).status_code == 401


@pytest.mark.parametrize(
    ("revision", "on_stale", "status", "state"),
    [(10**9, "refuse", 200, "applied"), (0, "refuse", 200, "lease_expired"), (0, "serve", 202, "pending")],
)
async def test_the_receipt_says_how_the_change_stands_at_each_replica(
    vault: Vault, revision: int, on_stale: Any, status: int, state: str
) -> None:
    replica = Replica(
        id="r1", revision=revision, applied_at="2026-01-02T03:04:05Z", lease=1.0, on_stale=on_stale
    )
    await vault.control.put(replica)
    follower = vault.app.state.follower
    await follower.wait_for(lambda: "r1" in follower.tables.replicas, timeout=5)
    answer = await vault.api.put(PATH, json={"header": "X-Api-Key", "key": "s3cret"})
    assert answer.status_code == status
    assert [item["state"] for item in answer.json()["receipt"]["replicas"]] == [state]
