"""Members through the API: which group a user is in, and moving them."""

import asyncio
import json
import threading
from collections.abc import Collection

import pytest

from libs.common.control.entries import AnyEntry
from tests.conftest import eventually
from tests.unit.conftest import Person, Shipped, SignIn
from tests.unit.policy.conftest import Policy
from tests.unit.records import admin_events

FINANCE = "/api/policy/groups/finance"


@pytest.fixture
async def mia(policy: Policy, sign_in: SignIn) -> Person:
    """A user of whom policy's tables know, and a group `finance` that nobody is in."""
    person = await sign_in("member", "mia")
    await eventually(lambda: "mia" in policy.app.state.follower.tables.users)
    assert (await policy.api.put(FINANCE, json={"name": "Finance"})).status_code == 200
    return person


async def _users(policy: Policy, group: str) -> list[str]:
    answer = await policy.api.get(f"/api/policy/groups/{group}/members")
    return [member["user"] for member in answer.json()["items"]]


async def test_everybody_is_in_the_default_group_until_they_are_moved(policy: Policy, mia: Person) -> None:
    assert (await policy.api.get("/api/policy/members/mia")).json() == {
        "user": "mia",
        "email": "mia@example.com",
        "name": "Mia",
        "active": True,
        "group": "default",
        "enabled": True,
        "reason": "",
        "until": "",
        "version": 0,
    }
    assert await _users(policy, "default") == ["ada", "mia"]
    assert await _users(policy, "finance") == []


async def test_moving_is_one_call_with_a_receipt_and_stands_in_the_log(policy: Policy, mia: Person) -> None:
    answer = await policy.api.put("/api/policy/members/mia", json={"group": "finance"})
    assert (answer.status_code, answer.json()["group"]) == (200, "finance")
    assert answer.json()["receipt"]["complete"]
    entry = await policy.control.get("member.mia")
    assert entry is not None
    assert (entry["group"], entry["enabled"]) == ("finance", True)
    assert await _users(policy, "default") == ["ada"]
    assert await _users(policy, "finance") == ["mia"]


async def test_moving_is_recorded_with_both_groups_and_repeating_it_is_not(
    policy: Policy, mia: Person, shipped: Shipped
) -> None:
    for _ in range(2):
        await policy.api.put("/api/policy/members/mia", json={"group": "finance"})
    await policy.api.put("/api/policy/members/mia", json={"group": "default"})
    _, moved, back = await admin_events(shipped, 3)
    assert (moved["event"], moved["subject"], moved["actor"]) == ("member_moved", "member.mia", "ada")
    groups = [json.loads(moved["before"])["group"], json.loads(moved["after"])["group"]]
    assert groups == ["default", "finance"]
    assert json.loads(back["after"])["group"] == "default"


async def test_nobody_is_moved_to_a_group_that_is_not_there(policy: Policy, mia: Person) -> None:
    answer = await policy.api.put("/api/policy/members/mia", json={"group": "sales"})
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:lockgate:error:unknown-group")
    assert await policy.control.get("member.mia") is None


@pytest.mark.parametrize("user", ["nobody", "a.b", ">", "*"])
async def test_whom_auth_does_not_know_is_not_found(policy: Policy, mia: Person, user: str) -> None:
    for answer in (
        await policy.api.get(f"/api/policy/members/{user}"),
        await policy.api.put(f"/api/policy/members/{user}", json={"group": "finance"}),
    ):
        assert (answer.status_code, answer.json()["type"]) == (404, "urn:lockgate:error:unknown-user")


async def test_a_member_whom_somebody_else_moved_is_not_moved(policy: Policy, mia: Person) -> None:
    path = "/api/policy/members/mia"
    tag = (await policy.api.get(path)).headers["etag"]
    first = await policy.api.put(path, json={"group": "finance"}, headers={"If-Match": tag})
    assert first.status_code == 200
    late = await policy.api.put(path, json={"group": "default"}, headers={"If-Match": tag})
    assert late.status_code == 412
    assert (await policy.api.get(path)).json()["group"] == "finance"


async def test_the_members_of_a_deleted_group_are_in_the_default_group(
    policy: Policy, mia: Person, shipped: Shipped
) -> None:
    await policy.api.put("/api/policy/members/mia", json={"group": "finance"})
    answer = await policy.api.delete(FINANCE)
    assert answer.status_code == 200
    entry = await policy.control.get("member.mia")
    assert entry is not None
    assert entry["group"] == "default"
    assert await _users(policy, "default") == ["ada", "mia"]
    deleted = (await admin_events(shipped, 3))[-1]
    assert (deleted["event"], deleted["subject"], deleted["after"]) == ("group_deleted", "group.finance", "")
    assert json.loads(deleted["before"])["members"] == ["mia"]
    assert deleted["revision"] == answer.json()["receipt"]["revision"]


async def test_members_are_moved_in_the_log_before_their_group_goes(policy: Policy, mia: Person) -> None:
    """In between they would be in a group that is not there, and what they have open would end."""
    await policy.api.put("/api/policy/members/mia", json={"group": "finance"})
    seen: list[str] = []
    policy.app.state.follower.subscribe(lambda key, value, revision: seen.append(key))
    await policy.api.delete(FINANCE)
    await eventually(lambda: "group.finance" in seen)
    assert seen.index("member.mia") < seen.index("group.finance")


async def test_members_are_listed_page_by_page(policy: Policy, mia: Person, sign_in: SignIn) -> None:
    for name in ("noa", "oda"):
        await sign_in("member", name)
    await eventually(lambda: "oda" in policy.app.state.follower.tables.users)
    path = "/api/policy/groups/default/members?limit=3"
    first = (await policy.api.get(path)).json()
    rest = (await policy.api.get(f"{path}&after={first['next']}")).json()
    assert [member["user"] for member in first["items"]] == ["ada", "mia", "noa"]
    assert [member["user"] for member in rest["items"]] == ["oda"]
    assert rest["next"] is None


async def test_a_switch_does_not_wait_until_all_members_of_a_deleted_group_are_moved(
    policy: Policy, mia: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = policy.app.state.parts.store
    for number in range(50):
        store.members.put(f"u{number:02}", "finance")
    await policy.add("wiki")
    begun, go_on, entries = threading.Event(), threading.Event(), store.entries

    def gated(keys: Collection[str] | None) -> dict[str, AnyEntry]:
        if keys == ["member.u00"]:
            begun.set()
            go_on.wait(10)
        found: dict[str, AnyEntry] = entries(keys)
        return found

    monkeypatch.setattr(store, "entries", gated)
    deletion = asyncio.create_task(policy.api.delete(FINANCE))
    await eventually(begun.is_set)
    switch = asyncio.create_task(policy.api.put("/api/policy/switches/server/wiki", json={}))
    await eventually(store.switches.list)
    go_on.set()
    off, deleted = (answer.json()["receipt"] for answer in (await switch, await deletion))
    assert off["complete"] and deleted["complete"]
    assert off["revision"] < deleted["revision"]
