"""Access as code through the API: a document, what it would change, who gains and loses, and applying it."""

import json
from functools import partial
from typing import Any

import pytest

from tests.conftest import eventually
from tests.unit.conftest import Person, Shipped, SignIn
from tests.unit.policy.conftest import Policy
from tests.unit.records import admin_events

ACCESS = "/api/policy/access"
EVERYONE: dict[str, Any] = {"name": "Everyone"}


@pytest.fixture
async def mia(policy: Policy, sign_in: SignIn) -> Person:
    """A user in the default group, and a server `wiki` with two tools and a prompt."""
    person = await sign_in("member", "mia")
    await eventually(lambda: "mia" in policy.app.state.follower.tables.users)
    await policy.add("wiki")
    for kind, names in (("tools", ["read", "write"]), ("prompts", ["greet"])):
        named = await policy.api.put(f"/api/policy/servers/wiki/{kind}", json={kind: names})
        assert named.status_code == 200
    return person


def document(**sections: Any) -> dict[str, Any]:
    return {"version": 1} | sections


def finance(**access: Any) -> dict[str, Any]:
    """Groups, in which mia is in `finance` with this access to the wiki."""
    members = {"name": "Finance", "members": ["mia@example.com"], "servers": {"wiki": access}}
    return document(groups={"default": EVERYONE, "finance": members})


async def plan(policy: Policy, wanted: dict[str, Any]) -> dict[str, Any]:
    answer = await policy.api.post(f"{ACCESS}/plan", json=wanted)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def apply(policy: Policy, wanted: dict[str, Any], etag: str = "") -> Any:
    headers = {"If-Match": f'"{etag}"'} if etag else {}
    return await policy.api.put(ACCESS, json=wanted, headers=headers)


async def problems(policy: Policy, wanted: dict[str, Any]) -> dict[str, str]:
    answer = await policy.api.post(f"{ACCESS}/plan", json=wanted)
    assert answer.status_code == 400, answer.text
    return {each["field"]: each["problem"] for each in answer.json()["errors"]}


async def test_what_is_exported_changes_nothing_when_it_is_applied(policy: Policy, mia: Person) -> None:
    assert (await apply(policy, finance(tools={"write": "deny"}))).status_code == 200
    rule = {"name": "Office", "scope": "user", "scope_id": "mia@example.com", "condition": "tool == 'read'"}
    quota = {"name": "Mia", "of": "user", "subject": "mia@example.com", "per_day": 9}
    rest = document(rules={"office": rule}, quotas={"mia": quota})
    assert (await apply(policy, rest)).status_code == 200
    exported = (await policy.api.get(ACCESS)).json()
    assert exported["groups"]["finance"]["members"] == ["mia@example.com"]
    assert exported["rules"] == {"office": rule}
    assert exported["quotas"] == {"mia": quota}
    assert (await plan(policy, exported))["differences"] == []
    applied = (await apply(policy, exported)).json()
    assert (applied["differences"], applied["receipt"]["complete"]) == ([], True)


async def test_a_plan_says_who_gains_and_loses_what_and_changes_nothing(policy: Policy, mia: Person) -> None:
    everyone = {"name": "Everyone", "servers": {"wiki": {"default": "deny", "tools": {"write": "allow"}}}}
    await apply(policy, document(groups={"default": everyone}))
    before = (await policy.api.get(ACCESS)).json()
    told = await plan(policy, finance(tools={"write": "deny"}))
    (moved,) = [each for each in told["effects"] if each["people"] == ["mia@example.com"]]
    assert (moved["before"], moved["after"], moved["count"]) == ("default", "finance", 1)
    assert (moved["gains"], moved["loses"], moved["later"]) == (
        ["tool read", "prompt greet"],
        ["tool write"],
        "gains",
    )
    (ada,) = [each for each in told["effects"] if each["people"] == ["ada@example.com"]]
    assert (ada["gains"], ada["loses"], ada["later"]) == ([], ["tool write"], "")
    changed = {(each["key"], each["what"]) for each in told["differences"]}
    assert changed == {
        ("group.default", "change"),
        ("group.finance", "create"),
        ("member.mia@example.com", "create"),
    }
    assert (await policy.api.get(ACCESS)).json() == before


async def test_an_unconditional_rule_counts_and_a_conditional_one_is_only_named(
    policy: Policy, mia: Person
) -> None:
    await apply(policy, finance())
    never = {"name": "Never", "tools": ["write"]}
    later = {"name": "Sometimes", "tools": ["read"], "condition": "arguments.size() > 3"}
    told = await plan(policy, document(rules={"never": never, "sometimes": later}))
    assert [each["key"] for each in told["differences"]] == ["rule.never", "rule.sometimes"]
    assert [(each["people"], each["loses"]) for each in told["effects"]] == [
        (["mia@example.com"], ["tool write"])
    ]


async def test_applying_is_one_receipt_and_a_record_for_each_thing(
    policy: Policy, mia: Person, shipped: Shipped
) -> None:
    wanted = finance(tools={"write": "deny"}) | {"rules": {"never": {"name": "Never"}}}
    answer = await apply(policy, wanted)
    assert (answer.status_code, answer.json()["receipt"]["complete"]) == (200, True)
    assert (await policy.control.get("group.finance") or {})["servers"]["wiki"]["tools"] == {"write": "deny"}
    assert (await policy.control.get("member.mia") or {})["group"] == "finance"
    assert (await policy.control.get("rule.never") or {})["effect"] == "deny"
    events = [each for each in await admin_events(shipped, 6) if each["event"] == "access_applied"]
    assert [each["subject"] for each in events] == ["group.finance", "member.mia", "rule.never"]
    assert json.loads(events[1]["after"]) == {"group": "finance"}


async def test_what_a_section_does_not_name_is_removed_and_an_absent_section_stays(
    policy: Policy, mia: Person
) -> None:
    await apply(policy, finance() | {"rules": {"never": {"name": "Never"}}})
    assert (await apply(policy, document(groups={"default": EVERYONE}))).status_code == 200
    assert await policy.control.get("group.finance") is None
    assert (await policy.control.get("member.mia") or {"group": "default"})["group"] == "default"
    assert await policy.control.get("rule.never") is not None
    await apply(policy, document(rules={}))
    assert await policy.control.get("rule.never") is None


async def test_a_plan_that_is_no_longer_true_is_not_applied(policy: Policy, mia: Person) -> None:
    told = await plan(policy, finance())
    await policy.api.put("/api/policy/groups/other", json={"name": "Other"})
    answer = await apply(policy, finance(), told["etag"])
    assert (answer.status_code, answer.json()["type"]) == (412, "urn:lockgate:error:changed-meanwhile")
    assert await policy.control.get("group.finance") is None


async def test_all_mistakes_are_told_at_once_with_their_places(policy: Policy, mia: Person) -> None:
    wanted = document(
        groups={
            "default": {"name": "Everyone", "members": ["ada@example.com"]},
            "a": {"name": "A", "members": ["mia@example.com", "nobody@example.com"]},
            "b": {"name": " ", "members": ["MIA@example.com"], "servers": {"nowhere": {}}},
            "C": {"name": "C"},
        },
        rules={
            "broken": {"name": "Broken", "condition": "tool =="},
            "whose": {"name": "Whose", "scope": "group", "scope_id": "gone"},
        },
        quotas={"none": {"name": "None", "of": "user"}},
    )
    found = await problems(policy, wanted)
    assert set(found) == {
        "groups.default.members",
        "groups.a.members[1]",
        "groups.b.name",
        "groups.b.members[0]",
        "groups.b.servers",
        "groups.C",
        "rules.broken",
        "rules.whose",
        "quotas.none",
    }
    assert "nobody@example.com" in found["groups.a.members[1]"]
    answer = await apply(policy, wanted)
    assert answer.status_code == 400
    assert await policy.control.get("group.a") is None


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({"version": 2}, "version"),
        (document(groups={"default": {"nmae": "E"}}), "groups.default.name"),
        (document(rules={"r": {"name": "R", "effect": "perhaps"}}), "rules.r.effect"),
        (document(people={}), "people"),
    ],
)
async def test_what_no_document_can_say_is_refused(
    policy: Policy, wanted: dict[str, Any], field: str
) -> None:
    assert field in await problems(policy, wanted)


async def test_the_default_group_cannot_be_left_out(policy: Policy) -> None:
    found = await problems(policy, document(groups={"a": {"name": "A"}}))
    assert "default group" in found["groups"]


async def test_members_and_auditors_have_no_part_in_it(policy: Policy, sign_in: SignIn) -> None:
    for role in ("member", "auditor"):
        person = await sign_in(role, role)
        await eventually(partial(policy.app.state.follower.tables.users.__contains__, role))
        for method, path in (("GET", ACCESS), ("POST", f"{ACCESS}/plan"), ("PUT", ACCESS)):
            body = document() if method != "GET" else None
            answer = await policy.api.request(method, path, json=body, headers=person.script)
            assert answer.status_code == 403
