"""Recorded calls decided again under a proposal, over the records of a real activity database."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from libs.common.clock import iso, now
from libs.common.control.entries import Group, Member, User
from libs.common.records import CallRecord
from services.activity.clickhouse import ClickHouse
from services.activity.recorded import Recorded
from services.activity.settings import ActivitySettings
from services.activity.store import RecordStore
from tests.conftest import eventually
from tests.unit.activity.records_made import call, encoded
from tests.unit.conftest import Shipped
from tests.unit.policy.conftest import Policy

YESTERDAY = now() - timedelta(days=1)


class Records:
    """What the activity service knows."""

    def __init__(self, clickhouse: ClickHouse) -> None:
        self._store, self._seq = RecordStore(clickhouse), 0

    async def add(self, *calls: dict[str, Any]) -> None:
        await self._store.insert("tool_calls", b"\n".join(encoded(self._made(each) for each in calls)))

    def _made(self, fields: dict[str, Any]) -> CallRecord:
        """A call of ada's to `wiki`; `arguments` are those of its tool."""
        self._seq += 1
        fields = {"tool": "read", "time": iso(YESTERDAY + timedelta(seconds=self._seq))} | fields
        arguments = fields.pop("arguments", {})
        params = json.dumps({"name": fields["tool"], "arguments": arguments})
        base = {"user": "ada", "email": "ada@example.com", "server": "wiki", "input": params}
        return call(self._seq, **base | fields)


@pytest.fixture
async def records(policy: Policy, tmp_path: Path) -> AsyncIterator[Records]:
    await policy.add("wiki", default_access="allow")
    clickhouse = ClickHouse(ActivitySettings(data_dir=tmp_path / "activity"))
    await clickhouse.start()
    await Recorded(policy.control.bus, clickhouse).start()
    yield Records(clickhouse)
    await clickhouse.stop()


async def _replay(policy: Policy, status: int = 200, **body: Any) -> dict[str, Any]:
    answer = await policy.api.post("/api/policy/replay", json=body, timeout=60)
    assert answer.status_code == status, answer.text
    result: dict[str, Any] = answer.json()
    return result


def _rule(condition: str = "", **more: Any) -> dict[str, Any]:
    return {"id": "new", "name": "New", "condition": condition} | more


async def test_a_proposed_rule_shows_which_calls_it_would_deny(policy: Policy, records: Records) -> None:
    await records.add({"arguments": {"n": 1}}, {"arguments": {"n": 9}}, {"arguments": {"n": 10}})
    outcome = await _replay(policy, rules=[_rule("arguments.n > 5", message="Too many.")])
    assert (outcome["calls"], outcome["newly_denied"], outcome["newly_allowed"]) == (3, 2, 0)
    assert (outcome["users"], outcome["complete"]) == (1, True)
    newest = outcome["denied"][0]
    assert (newest["user"], newest["tool"], newest["present"]["reason"]) == ("ada", "read", "allowed")
    assert newest["proposed"] == {"reason": "rule_denied", "rule": "rule.new", "detail": "Too many."}
    assert newest["time"] > outcome["denied"][1]["time"]


async def test_nothing_is_changed_by_it_and_it_is_recorded(
    policy: Policy, records: Records, shipped: Shipped
) -> None:
    await records.add({})
    await _replay(policy, rules=[_rule()])
    assert await policy.control.get("rule.new") is None
    assert (await policy.api.get("/api/policy/rules")).json()["items"] == []
    events: list[dict[str, Any]] = []
    async with asyncio.timeout(10):
        while len(events) < 2:  # the first is that of the server
            events = await shipped("admin_events")
    event = events[-1]
    assert (event["event"], event["actor"]) == ("calls_replayed", "ada")
    assert json.loads(event["after"])["rules"][0]["id"] == "new"


async def test_calls_are_decided_at_the_time_at_which_they_were_made(
    policy: Policy, records: Records
) -> None:
    noon = YESTERDAY.replace(hour=12)
    await records.add({"time": iso(noon)}, {"time": iso(noon.replace(hour=3))})
    outcome = await _replay(policy, rules=[_rule("now.getHours() < 6")])
    (denied,) = outcome["denied"]
    assert datetime.fromisoformat(denied["time"]).hour == 3


async def test_a_rule_in_place_of_another_and_one_that_is_removed(policy: Policy, records: Records) -> None:
    await records.add({"tool": "read"}, {"tool": "write", "status": "denied", "reason": "rule_denied"})
    body = {"name": "No writing", "condition": "tool == 'write'"}
    assert (await policy.api.put("/api/policy/rules/writing", json=body)).status_code == 200
    replaced = await _replay(policy, rules=[_rule("tool == 'read'", id="writing")])
    assert ([example["tool"] for example in replaced["denied"]], replaced["newly_allowed"]) == (["read"], 1)
    removed = await _replay(policy, removed_rules=["writing"])
    assert [example["tool"] for example in removed["allowed"]] == ["write"]
    assert removed["allowed"][0]["present"]["rule"] == "rule.writing"
    assert removed["newly_denied"] == 0


async def test_a_change_of_what_a_group_may_use(policy: Policy, records: Records) -> None:
    await records.add(
        {"tool": "read"},
        {"tool": "write"},
        {"method": "prompts/get", "tool": "p", "input": '{"name": "p"}'},
    )
    access = {"group": "default", "server": "wiki", "access": {"tools": {"write": "deny"}}}
    outcome = await _replay(policy, access=[access])
    assert [(example["tool"], example["proposed"]["reason"]) for example in outcome["denied"]] == [
        ("write", "tool_denied")
    ]
    closed = await _replay(policy, access=[access | {"access": None}])
    assert closed["newly_denied"] == 3
    assert closed["denied"][0]["proposed"]["reason"] == "server_not_allowed"


async def test_members_of_other_groups_are_not_concerned(policy: Policy, records: Records) -> None:
    await policy.control.put(User(version=1, id="bob", email="bob@example.com"))
    await policy.control.put(Group(version=1, id="closed", name="Closed"))
    await policy.control.put(Member(version=1, user="bob", group="closed"))
    await eventually(lambda: "bob" in policy.app.state.follower.tables.members)
    await records.add({"user": "ada"}, {"user": "bob", "status": "denied"})
    outcome = await _replay(policy, access=[{"group": "default", "server": "wiki", "access": None}])
    assert (outcome["calls"], outcome["newly_denied"], outcome["users"]) == (2, 1, 1)


async def test_a_condition_that_fails_on_past_calls_is_counted(policy: Policy, records: Records) -> None:
    await records.add({"arguments": {"path": "x"}}, {"arguments": {}}, {"arguments": {"path": 2**70}})
    outcome = await _replay(policy, rules=[_rule("arguments.path == '/etc'")])
    assert (outcome["newly_denied"], outcome["failed"]) == (2, 2)


async def test_calls_that_cannot_be_decided_again_are_counted(policy: Policy, records: Records) -> None:
    await records.add(
        {"input": '{"name":"re', "input_sha256": "ab"},
        {"input": '{"name":"re'},
        {"input": '{"name": 7}'},
        {"user": "gone"},
        {"server": "gone"},
        {"arguments": {"n": 1}},
    )
    outcome = await _replay(policy, rules=[_rule("arguments.n == 1")])
    assert outcome["unfit"] == {"input_cut": 1, "input_unreadable": 2, "user_gone": 1, "server_gone": 1}
    assert (outcome["calls"], outcome["newly_denied"]) == (1, 1)


async def test_an_input_that_was_cut_does_not_matter_where_nobody_looks_at_it(
    policy: Policy, records: Records
) -> None:
    await records.add({"tool": "write", "input": '{"name":"wr', "input_sha256": "ab"})
    for proposal in (
        {"rules": [_rule("tool == 'write'")]},
        {"access": [{"group": "default", "server": "wiki", "access": {"tools": {"write": "deny"}}}]},
    ):
        assert (await _replay(policy, **proposal))["newly_denied"] == 1


async def test_switches_of_now_do_not_hide_what_would_differ(policy: Policy, records: Records) -> None:
    await records.add({})
    await policy.api.put("/api/policy/organization/switch", json={"enabled": False})
    assert (await _replay(policy, rules=[_rule()]))["newly_denied"] == 1


async def test_only_the_newest_calls_of_the_days_are_looked_at(policy: Policy, records: Records) -> None:
    await records.add(*({} for _ in range(7)), {"time": iso(now() - timedelta(days=9))})
    outcome = await _replay(policy, rules=[_rule()])
    assert (outcome["calls"], outcome["complete"]) == (7, True)
    assert (await _replay(policy, rules=[_rule()], days=10))["calls"] == 8
    for most, complete in ((5, False), (7, True)):
        outcome = await _replay(policy, rules=[_rule()], calls=most)
        assert (outcome["calls"], outcome["complete"]) == (most, complete)


async def test_many_calls_are_read_in_pages(policy: Policy, records: Records) -> None:
    await records.add(*({"arguments": {"n": n}} for n in range(1201)))
    outcome = await _replay(policy, rules=[_rule("arguments.n >= 600")])
    assert (outcome["calls"], outcome["newly_denied"], len(outcome["denied"])) == (1201, 601, 20)


@pytest.mark.parametrize(
    ("body", "status", "type"),
    [
        ({}, 400, "bad-request"),
        ({"rules": [_rule("tool ==")]}, 400, "invalid-condition"),
        ({"removed_rules": ["nothing"]}, 404, "unknown-rule"),
        ({"access": [{"group": "nothing", "server": "wiki", "access": {}}]}, 404, "unknown-group"),
        ({"access": [{"group": "default", "server": "nothing", "access": {}}]}, 404, "unknown-server"),
        ({"rules": [_rule()], "days": 1000}, 400, "bad-request"),
    ],
)
async def test_a_proposal_that_cannot_be_is_refused(
    policy: Policy, body: dict[str, Any], status: int, type: str
) -> None:
    problem = await _replay(policy, status, **body)
    assert problem["type"] == f"urn:lockgate:error:{type}"


async def test_without_the_records_it_says_so(policy: Policy) -> None:
    assert (await _replay(policy, 503, rules=[_rule()]))["type"] == "urn:lockgate:error:unavailable"
