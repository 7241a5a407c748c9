"""Refresh tokens: rotation, the short window for repetition, and what reuse leads to."""

import asyncio

import pytest

from libs.common.control.entries import Revoked
from libs.common.tokens import InvalidToken, standing
from tests.unit.auth.house import Browser, Client, House


async def test_a_refresh_gives_a_new_token_and_a_new_refresh_token(
    house: House, browser: Browser, client: Client
) -> None:
    first = await client.connect(browser)
    second = (await client.refresh(first["refresh_token"])).json()
    assert second["refresh_token"] != first["refresh_token"]
    old, new = house.claims(first["access_token"]), house.claims(second["access_token"])
    assert (new.grant, new.audience, new.subject) == (old.grant, old.audience, old.subject)
    assert (await client.refresh(second["refresh_token"])).status_code == 200
    assert house.event("refreshed").grant == old.grant


async def test_a_repeated_refresh_is_answered_with_the_same_successor(
    browser: Browser, client: Client
) -> None:
    token = (await client.connect(browser))["refresh_token"]
    answers = await asyncio.gather(*(client.refresh(token) for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["refresh_token"] for answer in answers}) == 1


async def test_a_late_repetition_revokes_the_whole_grant(
    house: House, browser: Browser, client: Client
) -> None:
    first = await client.connect(browser)
    second = (await client.refresh(first["refresh_token"])).json()
    house.age("refresh_tokens", "replaced_at", 31)
    again = await client.refresh(first["refresh_token"])
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    for tokens in (first, second):
        with pytest.raises(InvalidToken) as refused:
            standing(house.app.state.follower.tables, house.claims(tokens["access_token"]))
        assert refused.value.reason == "token_revoked"
    assert (await client.refresh(second["refresh_token"])).json()["error"] == "invalid_grant"
    assert house.event("refresh_reused").outcome == "refused"


async def test_other_grants_survive_the_reuse_of_one(house: House, browser: Browser, client: Client) -> None:
    first, other = await client.connect(browser), await client.connect(browser)
    await client.refresh(first["refresh_token"])
    house.age("refresh_tokens", "replaced_at", 31)
    await client.refresh(first["refresh_token"])
    assert (await client.refresh(other["refresh_token"])).status_code == 200


async def test_a_refresh_token_is_of_use_to_its_client_only(
    house: House, browser: Browser, client: Client
) -> None:
    token = (await client.connect(browser))["refresh_token"]
    stranger = await house.client()
    assert (await stranger.refresh(token)).json()["error"] == "invalid_grant"
    assert (await client.refresh(token)).status_code == 200


async def test_a_refresh_token_expires(house: House, browser: Browser, client: Client) -> None:
    token = (await client.connect(browser))["refresh_token"]
    house.age("refresh_tokens", "expires_at", 180 * 24 * 3600 + 1)
    assert (await client.refresh(token)).json()["error"] == "invalid_grant"


async def test_asking_for_more_scope_gives_no_more(browser: Browser, client: Client) -> None:
    token = (await client.connect(browser, scope="mcp"))["refresh_token"]
    assert (await client.refresh(token, scope="mcp admin")).json()["scope"] == "mcp"


# -- revocation (RFC 7009) -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["refresh_token", "access_token"])
async def test_revoking_either_token_ends_the_grant_everywhere(
    house: House, browser: Browser, client: Client, kind: str
) -> None:
    tokens = await client.connect(browser)
    grant = house.claims(tokens["access_token"]).grant
    answer = await client.http.post("/oauth/revoke", data={"token": tokens[kind], "client_id": client.id})
    assert answer.status_code == 200
    tables = house.app.state.follower.tables
    assert isinstance(tables.revoked[grant], Revoked)  # in the log before the answer
    with pytest.raises(InvalidToken, match="token_revoked"):
        standing(tables, house.claims(tokens["access_token"]))
    assert (await client.refresh(tokens["refresh_token"])).json()["error"] == "invalid_grant"
    assert house.event("revoked").grant == grant


async def test_revoking_what_is_no_token_is_fine(client: Client) -> None:
    for token in ("nonsense", "a.b.c"):
        answer = await client.http.post("/oauth/revoke", data={"token": token, "client_id": client.id})
        assert answer.status_code == 200


async def test_a_client_cannot_revoke_another_clients_token(
    house: House, browser: Browser, client: Client
) -> None:
    tokens = await client.connect(browser)
    stranger = await house.client()
    params = {"token": tokens["refresh_token"], "client_id": stranger.id}
    assert (await client.http.post("/oauth/revoke", data=params)).status_code == 400
    assert (await client.refresh(tokens["refresh_token"])).status_code == 200


async def test_a_revocation_leaves_the_log_when_no_token_can_be_alive(
    house: House, browser: Browser, client: Client
) -> None:
    tokens = await client.connect(browser)
    grant = house.claims(tokens["access_token"]).grant
    await client.http.post("/oauth/revoke", data={"token": tokens["access_token"], "client_id": client.id})
    owner, follower = house.parts.owner, house.app.state.follower
    await owner.reconcile()
    assert grant in follower.tables.revoked
    house.age("revocations", "at", 3600 + 65)
    await owner.reconcile()
    await follower.wait_for(lambda: grant not in follower.tables.revoked, 5)
