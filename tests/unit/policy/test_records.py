"""Every change leaves an admin event: who, what, before, after, and the revision at which it holds."""

import json

from tests.unit.conftest import Shipped
from tests.unit.policy.conftest import Policy
from tests.unit.records import admin_events


async def test_a_change_is_recorded_with_its_author_before_and_after(
    policy: Policy, shipped: Shipped
) -> None:
    await policy.add("wiki")
    answer = await policy.api.put("/api/policy/servers/wiki/switch", json={"enabled": False, "reason": "x"})
    saved, disabled = await admin_events(shipped, 2)
    assert (saved["event"], saved["subject"], saved["before"]) == ("server_saved", "server.wiki", "")
    assert (disabled["event"], disabled["actor"]) == ("server_disabled", "ada")
    assert disabled["email"] == "ada@example.com"
    assert json.loads(disabled["before"])["enabled"] is True
    assert json.loads(disabled["after"])["reason"] == "x"
    assert disabled["revision"] == answer.json()["receipt"]["revision"]


async def test_each_kind_of_change_has_its_event(policy: Policy, shipped: Shipped) -> None:
    await policy.add("wiki")
    for method, path, body in (
        ("PUT", "servers/wiki/tools", {"tools": ["read"]}),
        ("PUT", "groups/default/servers/wiki", {"default": "allow"}),
        ("PUT", "groups/default", {"name": "Staff"}),
        ("PUT", "organization/switch", {"enabled": False}),
        ("PUT", "organization/switch", {"enabled": True}),
        ("DELETE", "servers/wiki", None),
    ):
        answer = await policy.api.request(method, f"/api/policy/{path}", json=body)
        assert answer.status_code == 200, path
    assert [event["event"] for event in await admin_events(shipped, 7)] == [
        "server_saved",
        "features_named",
        "access_changed",
        "group_saved",
        "organization_disabled",
        "organization_enabled",
        "server_deleted",
    ]


async def test_what_changes_nothing_is_not_recorded(policy: Policy, shipped: Shipped) -> None:
    await policy.add("wiki")
    await policy.add("wiki")
    await policy.add("other")
    events = await admin_events(shipped, 2)
    assert [event["subject"] for event in events] == ["server.wiki", "server.other"]
