"""Whom auth has removed, policy forgets."""

import asyncio
import json
from functools import partial

import pytest

from libs.common.control.entries import DEFAULT_GROUP, User
from libs.common.control.follower import SUBJECT
from services.policy.app import create_app
from services.policy.departures import departures
from services.policy.settings import PolicySettings
from tests.conftest import eventually
from tests.unit.conftest import ControlLog, Serve, Shipped, Signer, SignIn
from tests.unit.policy.conftest import Policy
from tests.unit.records import admin_events


@pytest.fixture
async def mia(policy: Policy, sign_in: SignIn) -> str:
    """A member of `finance` who is switched off; and noa, of the same group, who stays."""
    await policy.api.put("/api/policy/groups/finance", json={"name": "Finance"})
    for name in ("mia", "noa"):
        await sign_in("member", name)
        await eventually(partial(policy.app.state.follower.tables.users.get, name))
        await policy.api.put(f"/api/policy/members/{name}", json={"group": "finance"})
    await policy.api.put("/api/policy/switches/user/mia", json={"reason": "lost laptop"})
    return "mia"


async def _gone(control: ControlLog, key: str) -> None:
    async with asyncio.timeout(15):
        while await control.get(key) is not None:
            await asyncio.sleep(0.02)


async def test_the_group_and_the_switch_of_a_removed_user_go_with_them(
    policy: Policy, mia: str, shipped: Shipped
) -> None:
    await policy.control.remove("user.mia")
    await _gone(policy.control, "member.mia")
    assert (await policy.api.get("/api/policy/switches")).json()["items"] == []
    assert await policy.control.get("member.noa") is not None
    forgotten = (await admin_events(shipped, 5))[-1]
    assert (forgotten["event"], forgotten["actor"]) == ("member_forgotten", "policy")
    before, after = json.loads(forgotten["before"]), json.loads(forgotten["after"])
    assert (before["group"], after["group"]) == ("finance", DEFAULT_GROUP)


async def test_who_was_removed_while_policy_did_not_run_is_forgotten_at_the_start(
    settings: PolicySettings, control: ControlLog, serve: Serve, sign_in: SignIn
) -> None:
    await sign_in("admin", "ada")
    app = create_app(settings)
    app.state.parts.store.groups.put("finance", "Finance")
    app.state.parts.store.members.put("mia", "finance")
    app.state.parts.store.members.put("ada", "finance")
    await serve(app)
    await _gone(control, "member.mia")
    assert await control.get("member.ada") is not None


async def test_nobody_is_forgotten_while_auth_has_not_written_all_of_the_log(
    settings: PolicySettings, control: ControlLog, serve: Serve
) -> None:
    """Auth writes its keys last. Without them those who are missing may only not have been written."""
    app = create_app(settings)
    store = app.state.parts.store
    store.groups.put("finance", "Finance")
    for user in ("mia", "noa"):
        store.members.put(user, "finance")
    await serve(app)
    leaving = departures(control.bus, store, app.state.parts.changes, app.state.follower)
    assert await leaving.departed() == []
    await control.put(User(version=1, id="noa", email="noa@example.com"))
    await control.put(Signer().entry)
    await _gone(control, "member.mia")
    assert store.members.kept() == {"noa"}


async def test_who_comes_while_it_is_compared_is_not_taken_for_one_who_has_gone(
    policy: Policy, sign_in: SignIn
) -> None:
    """Here policy's tables are behind: they hear of her only after her member row was read."""
    follower, parts = policy.app.state.follower, policy.app.state.parts
    parts.store.groups.put("finance", "Finance")
    parts.store.members.put("mia", "finance")
    await sign_in("member", "mia")
    assert await departures(policy.control.bus, parts.store, parts.changes, follower).departed() == []


async def test_who_has_an_entry_that_cannot_be_read_has_not_left(policy: Policy, mia: str) -> None:
    """One that a later version of auth wrote."""
    await policy.control.bus.js.publish(SUBJECT + "user.mia", b'{"version":2,"id":"mia","role":"owner"}')
    tables = policy.app.state.follower.tables
    await eventually(lambda: "mia" not in tables.users)
    await policy.control.remove("user.noa")
    await _gone(policy.control, "member.noa")
    assert await policy.control.get("member.mia") is not None
