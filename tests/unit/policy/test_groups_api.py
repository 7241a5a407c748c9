"""Groups through the API: which there are, and what they may use."""

from typing import Any

import pytest

from tests.unit.policy.conftest import Policy

NOTHING_NAMED: dict[str, Any] = {"tools": {}, "prompts": {}, "resources": {}}


async def _access_in_log(policy: Policy, slug: str) -> Any:
    entry = await policy.control.get("group.default")
    assert entry is not None
    return entry["servers"].get(slug)


async def test_the_default_group_exists_from_the_start(policy: Policy) -> None:
    groups = (await policy.api.get("/api/policy/groups")).json()["items"]
    assert [group["id"] for group in groups] == ["default"]
    assert (await policy.control.get("group.default")) is not None


async def test_a_tool_denied_to_the_group_stands_in_the_log(policy: Policy) -> None:
    await policy.add("wiki")
    body = {"default": "allow", "tools": {"delete_page": "deny"}}
    answer = await policy.api.put("/api/policy/groups/default/servers/wiki", json=body)
    assert answer.status_code == 200
    assert answer.json()["servers"]["wiki"] == NOTHING_NAMED | body
    assert await _access_in_log(policy, "wiki") == NOTHING_NAMED | body


async def test_prompts_and_resources_are_granted_like_tools(policy: Policy) -> None:
    await policy.add("wiki")
    body = {
        "default": "deny",
        "tools": {"read": "allow"},
        "prompts": {"ask": "allow"},
        "resources": {"wiki://public/*": "allow", "wiki://public/draft": "deny"},
    }
    answer = await policy.api.put("/api/policy/groups/default/servers/wiki", json=body)
    assert answer.json()["servers"]["wiki"] == body
    assert await _access_in_log(policy, "wiki") == body


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"prompts": {"": "allow"}}, "the name of a prompt"),
        ({"resources": {"x" * 2001: "allow"}}, "the URI of a resource"),
        ({"resources": {"wiki://a": "perhaps"}}, "resources"),
    ],
)
async def test_what_can_be_no_name_is_refused(policy: Policy, body: dict[str, Any], said: str) -> None:
    await policy.add("wiki")
    answer = await policy.api.put("/api/policy/groups/default/servers/wiki", json=body)
    assert answer.status_code == 400
    assert said in answer.json()["detail"]


async def test_access_is_replaced_as_a_whole_and_taken_away(policy: Policy) -> None:
    await policy.add("wiki", default_access="allow")
    path = "/api/policy/groups/default/servers/wiki"
    await policy.api.put(path, json={"default": "deny", "tools": {"read": "allow"}})
    await policy.api.put(path, json={"default": "deny", "tools": {"list": "allow"}})
    assert await _access_in_log(policy, "wiki") == NOTHING_NAMED | {
        "default": "deny",
        "tools": {"list": "allow"},
    }
    assert (await policy.api.delete(path)).status_code == 200
    assert await _access_in_log(policy, "wiki") is None


async def test_the_same_access_twice_is_one_change(policy: Policy) -> None:
    await policy.add("wiki")
    path, body = "/api/policy/groups/default/servers/wiki", {"default": "allow", "tools": {}}
    first = (await policy.api.put(path, json=body)).json()
    assert (await policy.api.put(path, json=body)).json()["version"] == first["version"]


async def test_access_to_a_server_that_is_not_there_is_refused(policy: Policy) -> None:
    answer = await policy.api.put("/api/policy/groups/default/servers/wiki", json={})
    assert answer.status_code == 404
    assert answer.json()["type"] == "urn:lockgate:error:unknown-server"


async def test_an_unknown_group_is_not_found(policy: Policy) -> None:
    await policy.add("wiki")
    for answer in (
        await policy.api.get("/api/policy/groups/finance"),
        await policy.api.get("/api/policy/groups/finance/members"),
        await policy.api.put("/api/policy/groups/finance/servers/wiki", json={}),
    ):
        assert answer.status_code == 404
        assert answer.json()["type"] == "urn:lockgate:error:unknown-group"


async def test_a_verdict_that_is_none_is_refused(policy: Policy) -> None:
    await policy.add("wiki")
    body = {"default": "allow", "tools": {"read": "maybe"}}
    answer = await policy.api.put("/api/policy/groups/default/servers/wiki", json=body)
    assert answer.status_code == 400


async def test_a_new_group_may_use_nothing_and_is_in_the_log(policy: Policy) -> None:
    await policy.add("wiki", default_access="allow")
    answer = await policy.api.put("/api/policy/groups/finance", json={"name": "Finance"})
    assert answer.status_code == 200
    assert answer.json()["receipt"]["complete"]
    assert (answer.json()["name"], answer.json()["servers"]) == ("Finance", {})
    entry = await policy.control.get("group.finance")
    assert entry is not None
    assert (entry["name"], entry["servers"], entry["enabled"]) == ("Finance", {}, True)


async def test_a_group_that_is_there_is_renamed_and_not_made_anew(policy: Policy) -> None:
    path = "/api/policy/groups/finance"
    first = (await policy.api.put(path, json={"name": "Finance"})).json()
    again = await policy.api.put(path, json={"name": "Money"}, headers={"If-None-Match": "*"})
    assert (again.status_code, again.json()["type"]) == (409, "urn:lockgate:error:group-exists")
    renamed = (await policy.api.put(path, json={"name": "Money"})).json()
    assert renamed["name"] == "Money"
    assert renamed["version"] > first["version"]


@pytest.mark.parametrize("group", ["Finance", "a.b", "a b", "-a", "x" * 64])
async def test_what_can_be_no_id_of_a_group_is_refused(policy: Policy, group: str) -> None:
    for answer in (
        await policy.api.put(f"/api/policy/groups/{group}", json={"name": "Finance"}),
        await policy.api.delete(f"/api/policy/groups/{group}"),
    ):
        assert answer.status_code == 400


async def test_the_default_group_can_be_renamed_and_not_deleted(policy: Policy) -> None:
    answer = await policy.api.put("/api/policy/groups/default", json={"name": "Staff"})
    assert answer.json()["name"] == "Staff"
    refused = await policy.api.delete("/api/policy/groups/default")
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:lockgate:error:default-group")
    assert (await policy.control.get("group.default")) is not None


async def test_a_deleted_group_is_gone_from_the_log_and_deleting_it_again_is_no_error(policy: Policy) -> None:
    await policy.add("wiki")
    path = "/api/policy/groups/finance"
    await policy.api.put(path, json={"name": "Finance"})
    await policy.api.put(f"{path}/servers/wiki", json={})
    await policy.api.put("/api/policy/switches/group/finance", json={})
    for _ in range(2):
        assert (await policy.api.delete(path)).status_code == 200
        assert await policy.control.get("group.finance") is None
    assert (await policy.api.get("/api/policy/switches")).json()["items"] == []


async def test_a_group_that_somebody_changed_is_not_deleted(policy: Policy) -> None:
    path = "/api/policy/groups/finance"
    tag = (await policy.api.put(path, json={"name": "Finance"})).headers["etag"]
    await policy.api.put(path, json={"name": "Money"})
    assert (await policy.api.delete(path, headers={"If-Match": tag})).status_code == 412
    assert (await policy.api.get(path)).json()["name"] == "Money"


async def test_access_that_the_log_cannot_hold_is_refused_and_changes_nothing(policy: Policy) -> None:
    uris = {f"wiki://{'x' * 400}/{number}": "allow" for number in range(500)}  # 200 kB
    for number in range(6):
        await policy.add(f"wiki-{number}")
        path = f"/api/policy/groups/default/servers/wiki-{number}"
        answer = await policy.api.put(path, json={"resources": uris})
        if answer.status_code != 200:
            break
    assert (answer.status_code, "name fewer" in answer.json()["detail"]) == (400, True)
    servers = (await policy.api.get("/api/policy/groups/default")).json()["servers"]
    assert list(servers) == [f"wiki-{earlier}" for earlier in range(number)]
    assert number > 2


async def test_access_that_somebody_else_changed_is_not_overwritten(policy: Policy) -> None:
    await policy.add("wiki")
    tag = (await policy.api.get("/api/policy/groups/default")).headers["etag"]
    path = "/api/policy/groups/default/servers/wiki"
    assert (await policy.api.put(path, json={}, headers={"If-Match": tag})).status_code == 200
    late = await policy.api.put(path, json={"default": "deny"}, headers={"If-Match": tag})
    assert late.status_code == 412
    assert await _access_in_log(policy, "wiki") == NOTHING_NAMED | {"default": "allow"}
