"""Explanations of decisions: the ladder rung by rung, with what each rung read."""

import json
from typing import Any

from libs.common.control.entries import CredentialVersion, User, origin_of
from libs.common.decision.ladder import RUNGS
from libs.common.requests import QUOTA_USE, AskQuotaUse, QuotaStanding, QuotaUse
from services.policy import explain
from tests.conftest import eventually
from tests.unit.conftest import Person, SignIn
from tests.unit.policy.conftest import Policy

NAMES = [rung.__name__ for rung in RUNGS]


async def _explain(policy: Policy, **params: Any) -> dict[str, Any]:
    answer = await policy.api.get("/api/policy/explain", params={"user": "ada", "server": "wiki"} | params)
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()
    assert result["allowed"] is all(rung["holds"] for rung in result["rungs"])
    return result


async def _open(policy: Policy, **access: Any) -> None:
    await policy.add("wiki")
    await policy.api.put("/api/policy/groups/default/servers/wiki", json=access)


async def _rule(policy: Policy, id: str, **body: Any) -> int:
    answer = await policy.api.put(f"/api/policy/rules/{id}", json={"name": id} | body)
    assert answer.status_code == 200, answer.text
    revision: int = answer.json()["receipt"]["revision"]
    return revision


def test_what_each_rung_reads_is_known() -> None:
    assert list(explain._READ) == NAMES


async def test_what_is_allowed_is_told_rung_by_rung(policy: Policy) -> None:
    await _open(policy)
    explained = await _explain(policy, tool="read")
    assert (explained["allowed"], explained["reason"]) == (True, "allowed")
    assert [rung["rung"] for rung in explained["rungs"]] == NAMES
    assert (explained["user"], explained["email"], explained["group"]) == (
        "ada",
        "ada@example.com",
        "default",
    )
    assert explained["quotas"] is None  # there is no gateway to ask


async def test_it_ends_with_the_rung_that_does_not_hold(policy: Policy) -> None:
    await _open(policy, tools={"delete": "deny"})
    explained = await _explain(policy, tool="delete")
    last = explained["rungs"][-1]
    assert (last["rung"], last["reason"], last["rule"]) == (
        "group_may_use_subjects",
        "tool_denied",
        "group.default",
    )
    assert (explained["reason"], explained["rule"]) == ("tool_denied", "group.default")
    assert [rung["rung"] for rung in explained["rungs"]] == NAMES[: NAMES.index("group_may_use_subjects") + 1]


async def test_each_rung_names_the_revision_of_what_it_read(policy: Policy) -> None:
    await policy.add("wiki")
    answer = await policy.api.put("/api/policy/groups/default/servers/wiki", json={})
    revision = answer.json()["receipt"]["revision"]
    explained = await _explain(policy, tool="read")
    read = {rung["rung"]: rung["revisions"] for rung in explained["rungs"]}
    assert read["group_may_use_server"]["group.default"] == revision
    assert set(read["group_may_use_server"]) == {"group.default", "server.wiki"}
    assert set(read["user_and_grant"]) == {"user.ada"}
    assert set(read["organization_switch"]) == {"org"}
    assert explained["revision"] >= revision


async def test_rules_are_told_in_order_up_to_the_one_that_decides(policy: Policy) -> None:
    await _open(policy)
    await _rule(policy, "late", priority=1)
    revision = await _rule(policy, "middle", priority=2, condition="arguments.path.startsWith('/etc')")
    await _rule(policy, "first", priority=3, effect="allow", condition="user.role == 'auditor'")
    explained = await _explain(policy, tool="read", arguments=json.dumps({"path": "/etc/x"}))
    assert (explained["reason"], explained["rule"]) == ("rule_denied", "rule.middle")
    assert [(rule["id"], rule["holds"]) for rule in explained["rules"]] == [
        ("first", False),
        ("middle", True),
    ]
    assert explained["rungs"][-1]["revisions"]["rule.middle"] == revision


async def test_a_condition_that_cannot_be_evaluated_says_why(policy: Policy) -> None:
    await _open(policy)
    await _rule(policy, "path", condition="arguments.path == 'x'", message="Not here.")
    explained = await _explain(policy, tool="read")
    assert (explained["reason"], explained["detail"]) == ("rule_failed", "Not here.")
    assert "path" in explained["rules"][0]["failure"]


async def test_it_can_be_asked_for_another_time_and_client(policy: Policy) -> None:
    await _open(policy)
    await _rule(
        policy, "night", condition="now.getHours() < 6 && client.id == 'c1' && client.name == 'Cursor'"
    )
    night = {"client": "c1", "client_name": "Cursor", "at": "2026-11-23T03:00:00Z"}
    for changed in ({}, {"client": "c2"}, {"client_name": "Other"}, {"at": "2026-11-23T12:00:00Z"}):
        explained = await _explain(policy, tool="read", **night | changed)
        assert explained["allowed"] is bool(changed), changed


async def test_prompts_and_resources_are_asked_for_one_at_a_time(policy: Policy) -> None:
    await _open(policy, prompts={"p": "deny"}, resources={"file:///a": "deny"})
    assert (await _explain(policy, prompt="p"))["reason"] == "prompt_denied"
    assert (await _explain(policy, resource="file:///a"))["reason"] == "resource_denied"
    both = {"user": "ada", "server": "wiki", "tool": "t", "prompt": "p"}
    assert (await policy.api.get("/api/policy/explain", params=both)).status_code == 400


async def test_people_are_named_by_id_or_by_address(policy: Policy) -> None:
    await _open(policy)
    await policy.control.put(User(version=1, id="u-bob", email="bob@example.com", active=False))
    await eventually(lambda: "u-bob" in policy.app.state.follower.tables.users)
    for name in ("u-bob", "Bob@example.com"):
        explained = await _explain(policy, user=name)
        assert (explained["user"], explained["reason"]) == ("", "user_inactive")
        assert explained["rule"] == "user.u-bob"


async def test_what_is_not_there_is_said_and_no_error(policy: Policy) -> None:
    for name in ("nobody", "*", "a b.c", "x@y"):
        assert (await _explain(policy, user=name))["reason"] == "user_unknown"
    for server in ("nothing", "*", "a b"):
        assert (await _explain(policy, server=server))["reason"] == "server_unknown"


async def test_a_credential_that_is_missing_is_told(policy: Policy) -> None:
    await policy.add("wiki", auth="api_key", default_access="allow")
    missing = await _explain(policy, tool="read")
    assert (missing["reason"], missing["rungs"][-1]["rung"]) == ("credential_missing", "credential_present")
    origin = origin_of("https://wiki.example.com/mcp")
    await policy.control.put(CredentialVersion(version=1, slug="wiki", user="ada", origin=origin))
    await eventually(lambda: policy.app.state.follower.tables.credentials)
    present = await _explain(policy, tool="read")
    assert present["allowed"]
    assert set(present["rungs"][-1]["revisions"]) == {"credential.wiki.ada"}


async def test_how_far_quotas_are_used_a_gateway_tells(policy: Policy) -> None:
    await _open(policy)
    asked: list[AskQuotaUse] = []

    async def tell(query: AskQuotaUse) -> QuotaUse:
        asked.append(query)
        standing = QuotaStanding(quota="q", window="day", limit=5, used=3, resets="2026-11-24T00:00:00Z")
        return QuotaUse(limits=[standing])

    await policy.control.bus.serve(QUOTA_USE, AskQuotaUse, tell)
    explained = await _explain(policy, tool="read")
    assert [(quota["quota"], quota["used"], quota["limit"]) for quota in explained["quotas"]] == [("q", 3, 5)]
    assert asked == [AskQuotaUse(user="ada", server="wiki", tool="read", group="default")]
    assert (await _explain(policy))["quotas"] is None  # nothing is counted
    assert len(asked) == 1


async def test_arguments_are_a_json_object(policy: Policy) -> None:
    for arguments in ("[1]", "{", "[" * 5_000):
        answer = await policy.api.get(
            "/api/policy/explain",
            params={"user": "ada", "server": "wiki", "tool": "t", "arguments": arguments},
        )
        assert answer.status_code == 400


async def test_explanations_are_for_administrators(policy: Policy, sign_in: SignIn) -> None:
    member: Person = await sign_in("member")
    await eventually(lambda: member.user.id in policy.app.state.follower.tables.users)
    params = {"user": "ada", "server": "wiki"}
    answer = await policy.api.get("/api/policy/explain", params=params, headers=member.script)
    assert answer.status_code == 403
