"""A person's own credentials through the API: one or several per server, and theirs alone."""

import asyncio
from typing import Any

import pytest

from libs.common.bus import Refused
from libs.common.control.entries import DEFAULT_GROUP, Group, ServerAccess
from services.credentials.departures import departures
from services.credentials.domain import Draft, Owner
from tests.conftest import eventually
from tests.unit.conftest import Person, Shipped, SignIn
from tests.unit.credentials.conftest import Vault, server

MINE = "/api/credentials/mine"
PATH = f"{MINE}/servers/wiki"


@pytest.fixture
async def bob(vault: Vault, sign_in: SignIn) -> Person:
    """A member who may use the server `wiki`."""
    await vault.control.put(Group(version=1, id=DEFAULT_GROUP, name="All", servers={"wiki": ServerAccess()}))
    person = await sign_in("member", "bob")
    follower = vault.app.state.follower
    await follower.wait_for(lambda: "bob" in follower.tables.users, timeout=5)
    await follower.wait_for(lambda: DEFAULT_GROUP in follower.tables.groups, timeout=5)
    return person


async def _put(vault: Vault, person: Person, key: str, label: str = "", path: str = PATH) -> dict[str, Any]:
    body = {"values": {"key": key}, "label": label}
    answer = await vault.api.put(path, json=body, headers=person.script)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def _list(vault: Vault, person: Person) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await vault.api.get(MINE, headers=person.script)).json()["items"]
    return found


async def test_a_person_stores_their_own_key_and_it_is_theirs_alone(vault: Vault, bob: Person) -> None:
    await _put(vault, bob, "bobs")
    assert (await vault.inject(user="bob")).headers == {"authorization": "Bearer bobs"}
    with pytest.raises(Refused) as refused:
        await vault.open()
    assert refused.value.reason == "no-credential"


async def test_the_list_says_what_is_used_and_what_to_enter(vault: Vault, bob: Person) -> None:
    (wiki,) = await _list(vault, bob)
    assert (wiki["slug"], wiki["uses"], wiki["attention"]) == ("wiki", "", "Nothing is stored for it yet.")
    assert [field["name"] for field in wiki["fields"]] == ["key"]
    await vault.store("for-all")
    (wiki,) = await _list(vault, bob)
    assert (wiki["uses"], wiki["attention"], wiki["accounts"]) == ("organization", "", [])
    account = await _put(vault, bob, "bobs", "Work")
    (wiki,) = await _list(vault, bob)
    assert (wiki["uses"], [item["id"] for item in wiki["accounts"]]) == ("own", [account["id"]])


async def test_the_list_is_about_usable_servers_that_need_one(vault: Vault, bob: Person) -> None:
    servers = {"wiki": ServerAccess(), "open": ServerAccess(), "gone": ServerAccess()}
    await vault.control.put(Group(version=2, id=DEFAULT_GROUP, name="All", servers=servers))
    await vault.know(server("open", auth="none"))
    await vault.know(server("hidden"))
    assert [item["slug"] for item in await _list(vault, bob)] == ["wiki"]


async def test_a_server_that_one_may_not_use_is_as_good_as_none(vault: Vault, bob: Person) -> None:
    await vault.know(server("hidden"))
    body = {"values": {"key": "x"}}
    hidden = await vault.api.put(f"{MINE}/servers/hidden", json=body, headers=bob.script)
    nothing = await vault.api.put(f"{MINE}/servers/nothing", json=body, headers=bob.script)
    assert (hidden.status_code, nothing.status_code) == (404, 404)
    assert hidden.json()["detail"].replace("hidden", "nothing") == nothing.json()["detail"]


async def test_another_label_is_another_account_and_the_newest_is_used(vault: Vault, bob: Person) -> None:
    work, home = await _put(vault, bob, "w", "Work"), await _put(vault, bob, "h", "Home")
    assert home["version"] > work["version"]
    assert (await vault.inject(user="bob")).headers == {"authorization": "Bearer h"}
    (wiki,) = await _list(vault, bob)
    assert [(item["label"], item["chosen"]) for item in wiki["accounts"]] == [("Home", True), ("Work", False)]


async def test_the_same_label_replaces(vault: Vault, bob: Person) -> None:
    first, second = await _put(vault, bob, "1", "Work"), await _put(vault, bob, "2", "Work")
    assert first["id"] == second["id"]
    assert second["created_at"] == first["created_at"]
    assert (await vault.inject(user="bob")).headers == {"authorization": "Bearer 2"}


async def test_choosing_another_account_is_a_new_version_for_gateways(vault: Vault, bob: Person) -> None:
    work, home = await _put(vault, bob, "w", "Work"), await _put(vault, bob, "h", "Home")
    answer = await vault.api.put(f"{MINE}/accounts/{work['id']}/chosen", headers=bob.script)
    assert answer.json()["version"] > home["version"]
    assert answer.json()["receipt"]["complete"] is True
    entry = await vault.control.get("credential.wiki.bob")
    assert entry and entry["version"] == answer.json()["version"]
    assert (await vault.inject(user="bob")).headers == {"authorization": "Bearer w"}


async def test_choosing_the_chosen_one_changes_nothing(vault: Vault, bob: Person) -> None:
    work = await _put(vault, bob, "w", "Work")
    answer = await vault.api.put(f"{MINE}/accounts/{work['id']}/chosen", headers=bob.script)
    assert answer.json()["version"] == work["version"]


async def test_when_the_chosen_account_goes_the_newest_other_one_is_used(vault: Vault, bob: Person) -> None:
    for label in ("One", "Two", "Three"):
        last = await _put(vault, bob, label, label)
    answer = await vault.api.delete(f"{MINE}/accounts/{last['id']}", headers=bob.script)
    assert answer.status_code == 200
    entry = await vault.control.get("credential.wiki.bob")
    assert entry and entry["version"] > last["version"]
    assert (await vault.inject(user="bob")).headers == {"authorization": "Bearer Two"}


async def test_disconnecting_takes_all_accounts_away(vault: Vault, bob: Person) -> None:
    await _put(vault, bob, "w", "Work")
    await _put(vault, bob, "h", "Home")
    assert (await vault.api.delete(PATH, headers=bob.script)).status_code == 200
    assert await vault.control.get("credential.wiki.bob") is None
    assert (await _list(vault, bob))[0]["accounts"] == []


async def test_nobody_touches_the_account_of_another(vault: Vault, bob: Person) -> None:
    own = await _put(vault, vault.admin, "adas")
    shared = await vault.store("for-all")
    for account in (own["id"], shared["id"], "nothing"):
        path = f"{MINE}/accounts/{account}"
        assert (await vault.api.delete(path, headers=bob.script)).status_code == 404
        assert (await vault.api.put(f"{path}/chosen", headers=bob.script)).status_code == 404
    assert (await vault.inject(user="ada")).headers == {"x-api-key": "adas"}


async def test_an_administrator_deletes_the_account_of_another_but_does_not_choose_it(
    vault: Vault, bob: Person
) -> None:
    account = await _put(vault, bob, "bobs")
    path = f"/api/credentials/accounts/{account['id']}"
    assert (await vault.api.put(f"{path}/chosen")).status_code == 404
    assert (await vault.api.delete(path)).status_code == 200
    assert await vault.control.get("credential.wiki.bob") is None


async def test_accounts_are_bounded(vault: Vault, bob: Person) -> None:
    for number in range(20):
        await _put(vault, bob, "k", f"Account {number}")
    body = {"values": {"key": "k"}, "label": "One more"}
    answer = await vault.api.put(PATH, json=body, headers=bob.script)
    assert answer.status_code == 409
    assert "Disconnect one first" in answer.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [{}, {"values": {}}, {"values": {"other": "s3cret"}}, {"values": {"key": ""}},
     {"values": {"key": "s3cret\n"}}, {"values": {"key": "s3cret", "more": "s3cret"}},
     {"values": {"key": "s3cret"}, "label": "a\nb"}, {"values": {"key": "s3cret"}, "label": "x" * 201},
     {"values": "s3cret"}, {"values": {"key": ["s3cret"]}}],
)  # fmt: skip
async def test_what_does_not_fit_is_refused_and_not_repeated(
    vault: Vault, bob: Person, body: dict[str, Any]
) -> None:
    answer = await vault.api.put(PATH, json=body, headers=bob.script)
    assert answer.status_code == 400
    assert "s3cret" not in answer.text


async def test_a_server_connected_in_a_browser_takes_no_key(vault: Vault, bob: Person) -> None:
    await vault.know(server(auth="oauth"))
    answer = await vault.api.put(PATH, json={"values": {"key": "x"}}, headers=bob.script)
    assert answer.status_code == 409
    (wiki,) = await _list(vault, bob)
    assert wiki["fields"] == []
    assert wiki["connect_url"].endswith("/credentials/servers/wiki")


async def test_a_key_is_not_given_out_for_a_server_that_wants_another_kind(vault: Vault, bob: Person) -> None:
    await _put(vault, bob, "bobs")
    await vault.know(server(auth="oauth"))
    with pytest.raises(Refused) as refused:
        await vault.inject(user="bob")
    assert refused.value.reason == "no-credential"
    assert (await _list(vault, bob))[0]["uses"] == ""


# -- people who leave -------------------------------------------------------------------------------


async def test_removing_a_person_deletes_their_credentials_and_nobody_elses(
    vault: Vault, bob: Person, shipped: Shipped
) -> None:
    await _put(vault, bob, "bobs")
    await vault.store("for-all")
    await vault.control.remove("user.bob")

    follower = vault.app.state.follower
    await eventually(lambda: "wiki.bob" not in follower.tables.credentials)
    items = (await vault.api.get("/api/credentials")).json()["items"]
    assert [item["user"] for item in items] == ["organization"]
    events: list[dict[str, Any]] = []
    async with asyncio.timeout(10):
        while "credential_deleted" not in [event["event"] for event in events]:
            events = await shipped("admin_events")
    assert (events[-1]["actor"], events[-1]["subject"]) == ("lockgate", "credential.wiki.bob")


async def test_a_log_that_was_lost_does_not_look_like_everybody_left(vault: Vault, bob: Person) -> None:
    """Auth writes `keys` last: until then somebody who is not there may still come."""
    await _put(vault, bob, "bobs")
    await _put(vault, vault.admin, "adas")
    follower = vault.app.state.follower
    keys = follower.tables.keys
    await vault.control.remove("keys")
    await vault.control.remove("user.bob")
    await follower.wait_for(lambda: "bob" not in follower.tables.users, timeout=5)
    await vault.control.put(bob.user)
    await vault.control.put(keys)
    await follower.wait_for(lambda: follower.tables.keys is not None, timeout=5)
    await vault.control.remove("user.ada")
    await eventually(lambda: "wiki.ada" not in follower.tables.credentials)
    assert "wiki.bob" in follower.tables.credentials


async def test_who_comes_while_it_is_compared_is_not_taken_for_one_who_left(
    vault: Vault, sign_in: SignIn
) -> None:
    """Here this replica's tables are behind another's, which has stored something for her already."""
    parts, follower = vault.app.state.parts, vault.app.state.follower
    draft = Draft(kind="api_key", secret=b'{"key":"mias"}', origin="https://wiki.example.com")
    parts.store.accounts.put(Owner("wiki", "mia"), draft, "mia@example.com")
    await sign_in("member", "mia")
    leaving = departures(vault.control.bus, parts.store.accounts, parts.changes, follower)
    assert await leaving.departed() == []
