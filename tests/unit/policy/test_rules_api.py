"""Rules through the API: what is kept of them, and what is refused when they are saved."""

from typing import Any

import pytest

from libs.common.control.entries import Server, User
from tests.conftest import eventually
from tests.unit.policy.conftest import Policy

RULE: dict[str, Any] = {
    "name": "No deletions",
    "effect": "deny",
    "priority": 5,
    "servers": ["wiki"],
    "tools": ["delete"],
    "condition": "user.role != 'admin' && arguments.space == 'legal'",
    "message": "Ask the legal team.",
}


async def _put(policy: Policy, id: str = "no-deletions", status: int = 200, **body: Any) -> Any:
    answer = await policy.api.put(f"/api/policy/rules/{id}", json=RULE | body)
    assert answer.status_code == status, answer.text
    return answer.json()


async def test_a_rule_stands_in_the_log_as_it_was_saved(policy: Policy) -> None:
    await policy.add("wiki")
    saved = await _put(policy)
    assert saved["receipt"]["complete"]
    entry = await policy.control.get("rule.no-deletions")
    expected = RULE | {"id": "no-deletions", "version": saved["version"]}
    assert entry == expected | {"scope": "organization", "scope_id": "", "enabled": True}
    assert (await policy.api.get("/api/policy/rules/no-deletions")).json() == entry


async def test_a_rule_that_is_deleted_is_gone_from_the_log(policy: Policy) -> None:
    await policy.add("wiki")
    await _put(policy)
    for _ in range(2):  # a repetition is no error
        answer = await policy.api.delete("/api/policy/rules/no-deletions")
        assert (answer.status_code, answer.json()["receipt"]["complete"]) == (200, True)
    assert await policy.control.get("rule.no-deletions") is None
    assert (await policy.api.get("/api/policy/rules/no-deletions")).status_code == 404


async def test_saving_a_rule_as_it_is_changes_nothing(policy: Policy) -> None:
    await policy.add("wiki")
    first, second = await _put(policy), await _put(policy)
    assert first["version"] == second["version"]
    assert first["receipt"]["revision"] == second["receipt"]["revision"]


async def test_the_log_is_brought_to_the_rules_of_the_database_again(policy: Policy) -> None:
    await policy.add("wiki")
    await _put(policy)
    await policy.control.remove("rule.no-deletions")
    await eventually(lambda: not policy.app.state.follower.tables.rules)
    await _put(policy)
    assert await policy.control.get("rule.no-deletions") is not None


async def test_rules_are_listed_by_id_in_pages(policy: Policy) -> None:
    for id in ("b", "a", "c"):
        await _put(policy, id, servers=[])
    first = (await policy.api.get("/api/policy/rules", params={"limit": 2})).json()
    second = (await policy.api.get("/api/policy/rules", params={"after": first["next"]})).json()
    assert [rule["id"] for page in (first, second) for rule in page["items"]] == ["a", "b", "c"]
    assert second["next"] is None


@pytest.mark.parametrize(
    ("condition", "place"),
    [
        ("tool ==", {"line": 1, "column": 8, "position": 7}),
        ("user.role == 'admin' &&\n  tol == 'x'", {"line": 2, "column": 3, "position": 26}),
        ("tool.lower() == 'x'", {"line": 1, "column": 6, "position": 5}),
        ("[1].all(a, [1].all(b, [1].all(c, true)))", {"line": 1, "column": 30, "position": 29}),
    ],
)
async def test_a_mistake_in_a_condition_is_told_with_its_place(
    policy: Policy, condition: str, place: dict[str, int]
) -> None:
    problem = await _put(policy, status=400, servers=[], condition=condition)
    assert problem["type"] == "urn:lockgate:error:invalid-condition"
    assert {name: problem[name] for name in place} == place
    assert await policy.control.get("rule.no-deletions") is None


REFUSED: dict[str, tuple[dict[str, Any], int]] = {
    "an unknown server": ({"servers": ["wikki"]}, 404),
    "an unknown group": ({"scope": "group", "scope_id": "finance"}, 404),
    "an unknown user": ({"scope": "user", "scope_id": "nobody"}, 404),
    "a group that is not named": ({"scope": "group"}, 400),
    "a scope that the organization does not have": ({"scope_id": "default"}, 400),
    "an effect that is none": ({"effect": "maybe"}, 400),
    "a priority without bounds": ({"priority": 1001}, 400),
    "a tool that can be none": ({"tools": [""]}, 400),
    "a long condition": ({"condition": "true" + " " * 2000}, 400),
    "a long message": ({"message": "x" * 501}, 400),
    "a message of two lines": ({"message": "a\nb"}, 400),
    "no name": ({"name": " "}, 400),
    "a field that is none": ({"conditions": ""}, 400),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_a_rule_is_refused_with(policy: Policy, name: str) -> None:
    body, status = REFUSED[name]
    await _put(policy, status=status, **{"servers": []} | body)


async def test_an_id_that_cannot_be_part_of_a_key_is_refused(policy: Policy) -> None:
    for id in ("a.b", "A", "a*", "-"):
        await _put(policy, id, status=400, servers=[])


async def test_a_rule_for_a_group_or_a_user_names_one_that_is_there(policy: Policy) -> None:
    await policy.control.put(User(version=1, id="bob", email="bob@example.com"))
    await eventually(lambda: "bob" in policy.app.state.follower.tables.users)
    await _put(policy, servers=[], scope="user", scope_id="bob")
    await _put(policy, servers=[], scope="group", scope_id="default")


async def test_a_rule_can_be_changed_after_a_server_that_it_names_was_deleted(policy: Policy) -> None:
    """It must not come to mean all servers by itself, either."""
    await policy.add("wiki")
    await _put(policy)
    await policy.api.delete("/api/policy/servers/wiki")
    await _put(policy, enabled=False)
    entry = await policy.control.get("rule.no-deletions")
    assert entry and entry["servers"] == ["wiki"]


async def test_a_rule_that_somebody_else_changed_is_not_overwritten(policy: Policy) -> None:
    await _put(policy, servers=[])
    tag = (await policy.api.get("/api/policy/rules/no-deletions")).headers["etag"]
    headers = {"If-Match": tag}
    path, body = "/api/policy/rules/no-deletions", RULE | {"servers": []}
    assert (await policy.api.put(path, json=body | {"priority": 1}, headers=headers)).status_code == 200
    assert (await policy.api.put(path, json=body | {"priority": 2}, headers=headers)).status_code == 412
    assert (await policy.api.delete(path, headers=headers)).status_code == 412
    created = await policy.api.put(path, json=body, headers={"If-None-Match": "*"})
    assert (created.status_code, created.json()["type"]) == (409, "urn:lockgate:error:rule-exists")


async def test_a_server_of_that_name_in_the_log_alone_does_not_count(policy: Policy) -> None:
    """What there is, policy's own database says."""
    await policy.control.put(Server(version=1, slug="ghost", name="Ghost", url="https://g.example.com/mcp"))
    await _put(policy, status=404, servers=["ghost"])
