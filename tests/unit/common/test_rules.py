"""Rules: which apply, in which order, and what becomes of conditions that cannot be evaluated."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from libs.common.control.entries import Rule, key_of
from libs.common.decision import rules
from libs.common.decision.ladder import Call, Climb, Decision, decide, rules_allow
from libs.common.decision.subjects import Kind, Subject
from tests.unit.common.test_ladder import CLAIMS, tables

NESTED: dict[str, Any] = {"a": 1}
for _ in range(100):
    NESTED = {"a": NESTED}


def rule(id: str = "r1", condition: str = "", **values: object) -> Rule:
    return Rule(version=1, id=id, name=id, condition=condition, **values)  # type: ignore[arg-type]


def decided(*given: Rule, name: str = "echo", kind: Kind = "tool", **arguments: Any) -> Decision:
    """On a call by alice, who is in the group `default`, of something at the server `demo`."""
    method = {"tool": "tools/call", "prompt": "prompts/get", "resource": "resources/read"}[kind]
    call = Call("demo", method, (Subject(kind, name),), arguments)
    return decide(tables(*given), 1, True, CLAIMS, call)


def test_a_rule_without_a_condition_always_holds() -> None:
    decision = decided(rule(message="Ask the security team."))
    assert (decision.allowed, decision.reason, decision.rule) == (False, "rule_denied", "rule.r1")
    assert decision.detail == "Ask the security team."


def test_a_denial_without_a_message_names_its_rule() -> None:
    assert "'r1'" in decided(rule()).detail


def test_a_condition_that_does_not_hold_leaves_it_to_the_group() -> None:
    decision = decided(rule(condition="tool == 'other'"))
    assert (decision.allowed, decision.rule) == (True, "group.default")


@pytest.mark.parametrize(
    "condition",
    [
        "user.id == 'alice' && user.email == 'alice@x.example' && user.role == 'member'",
        "group.id == 'default' && group.name == 'default'",
        "client.id == 'c1' && client.name == 'Client'",
        "server.slug == 'demo' && server.name == 'demo'",
        "method == 'tools/call' && kind == 'tool' && name == 'echo' && tool == 'echo'",
        "arguments.path.startsWith('/etc/') && arguments.n == 9007199254740993 && has(arguments.none)",
        "arguments.none == null && arguments.list.exists(x, x == 'b')",
        "arguments.u == 18446744073709551615u",
        "now > timestamp('2026-01-01T00:00:00Z')",
    ],
)
def test_conditions_see_caller_use_arguments_and_time(condition: str) -> None:
    decision = decided(
        rule(condition=condition),
        path="/etc/passwd",
        n=9007199254740993,
        u=2**64 - 1,
        none=None,
        list=["a", "b"],
    )
    assert decision.rule == "rule.r1"


@pytest.mark.parametrize(
    ("condition", "at"),
    [
        ("now.getHours() == 23 && now.getDayOfWeek() == 0", "2026-11-22T23:30:00+00:00"),
        (
            "now.getHours('Europe/Berlin') == 0 && now.getDayOfWeek('Europe/Berlin') == 1",
            "2026-11-22T23:30:00+00:00",
        ),
        ("now.getHours('Europe/Berlin') == 1", "2026-06-22T23:30:00+00:00"),  # summer time
        ("now.getDate('+02:00') == 1 && now.getMonth('+02:00') == 0", "2025-12-31T22:30:00+00:00"),
        ("now.getMinutes('-00:45') == 45 && now.getFullYear('-00:45') == 2025", "2026-01-01T00:30:00+00:00"),
    ],
)
def test_times_of_day_are_those_of_the_zone_that_is_named(condition: str, at: str) -> None:
    call = Call("demo", "tools/call", (Subject("tool", "echo"),))
    state = tables(rule(condition=condition))
    climb = Climb(state, True, CLAIMS, call, at=datetime.fromisoformat(at).astimezone(UTC))
    climb.user, climb.server = state.users["alice"], state.servers["demo"]
    refusal = rules_allow(climb)
    assert refusal and refusal.reason == "rule_denied", refusal


FAILING: dict[str, tuple[str, dict[str, Any]]] = {
    "an argument that is not there": ("arguments.missing == 1", {}),
    "types that cannot be compared": ("arguments.n > 'x'", {"n": 1}),
    "a division by zero": ("1 / arguments.n == 1", {"n": 0}),
    "an overflow": ("arguments.n + 1 > 0", {"n": 2**63 - 1}),
    "no truth value": ("arguments.n", {"n": 1}),
    "an empty text": ("arguments.text", {"text": ""}),
    "a zone that is none": ("now.getHours(arguments.zone) > 8", {"zone": "../../etc"}),
    "an integer of 70 bits": ("arguments.n > 5", {"n": 2**70}),
    "one that it does not read": ("arguments.n == 1", {"n": 1, "deep": [{"m": -(2**70)}]}),
    "arguments too deep": ("has(arguments.a)", {"a": NESTED}),
    "arguments with too many values": ("has(arguments.a)", {"a": [0] * 10_001}),
    "arguments with too much text": ("has(arguments.a)", {"a": "x" * 1_048_577}),
    "arguments too large for a loop": ("arguments.a.all(x, x == 0)", {"a": [0] * 1_001}),
    "arguments too large for loops in loops": (
        "arguments.a.all(x, arguments.a.all(y, x == y))",
        {"a": [0] * 101},
    ),
    "a condition of a version that knows more": ("user.department == 'x' && later(1)", {}),
    "a condition that is no CEL": ("tool ==", {}),
}


@pytest.mark.parametrize("name", FAILING)
@pytest.mark.parametrize("effect", ["deny", "allow"])
def test_a_condition_that_cannot_be_evaluated_denies(name: str, effect: str) -> None:
    condition, arguments = FAILING[name]
    decision = decided(rule(condition=condition, effect=effect), **arguments)
    assert (decision.allowed, decision.reason, decision.rule) == (False, "rule_failed", "rule.r1")


def test_what_a_caller_sent_is_not_logged_when_a_condition_fails(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    for condition in (
        "now.getHours(arguments.x) == 1",
        "arguments.x.getHours('UTC') == 1",
        "arguments.x.getHours() == 1",
        "arguments.x.contains(1)",
        "int(arguments.x) == 1",
        "arguments[arguments.x] == 1",
    ):
        assert decided(rule(condition=condition), x="Wachtmeister").reason == "rule_failed", condition
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_the_caller_is_told_why_a_condition_without_a_message_failed() -> None:
    assert "there is no 'path'" in decided(rule(condition="arguments.path == 1")).detail
    assert "contains() is not for" in decided(rule(condition="arguments.x.contains('a')"), x=1).detail


def test_arguments_that_no_condition_reads_may_be_anything() -> None:
    assert decided(rule(condition="tool == 'other'"), n=2**70, deep=NESTED, long=[0] * 20_000).allowed


def test_a_condition_that_is_decided_without_what_is_missing_holds_or_not() -> None:
    condition = "tool == 'other' && arguments.missing == 1"
    assert decided(rule(condition=condition)).allowed


def test_deep_arguments_are_refused_without_recursion() -> None:
    """CEL's conversion would end the process."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert decided(rule(condition="has(arguments.a)"), a=deep).reason == "rule_failed"


APPLYING = {
    "everybody's": rule(),
    "the caller's": rule(scope="user", scope_id="alice"),
    "the caller's group's": rule(scope="group", scope_id="default"),
    "for the server": rule(servers=["other", "demo"]),
    "for the tool": rule(tools=["echo", "other"]),
    "for the tool at the server": rule(servers=["demo"], tools=["echo"]),
}
OTHERS = {
    "another user's": rule(scope="user", scope_id="bob"),
    "another group's": rule(scope="group", scope_id="other"),
    "a group's that is called like the user": rule(scope="group", scope_id="alice"),
    "a user's without a name": rule(scope="user"),
    "for another server": rule(servers=["other"]),
    "for another tool": rule(tools=["other"]),
    "for the tool at another server": rule(servers=["other"], tools=["echo"]),
    "not enabled": rule(enabled=False),
}


@pytest.mark.parametrize("name", APPLYING)
def test_a_rule_applies_that_is(name: str) -> None:
    assert decided(APPLYING[name]).rule == "rule.r1"


@pytest.mark.parametrize("name", OTHERS)
def test_a_rule_does_not_apply_that_is(name: str) -> None:
    assert decided(OTHERS[name]).allowed


def test_rules_apply_to_prompts_and_resources_unless_they_name_tools() -> None:
    for kind in ("prompt", "resource"):
        assert decided(rule(servers=["demo"]), kind=kind).rule == "rule.r1"
        assert decided(rule(tools=["echo"]), kind=kind).allowed


def test_lists_and_handshakes_are_not_held_against_rules() -> None:
    for method in ("initialize", "tools/list", ""):
        assert decide(tables(rule()), 1, True, CLAIMS, Call("demo", method)).allowed


def test_each_resource_of_a_request_is_held_against_them() -> None:
    subjects = tuple(Subject("resource", uri) for uri in ("file:///a", "file:///secret"))
    state = tables(rule("r1", "name == 'file:///a'", effect="allow"), rule("r2", "name.endsWith('secret')"))
    decision = decide(state, 1, True, CLAIMS, Call("demo", "subscriptions/listen", subjects))
    assert decision.rule == "rule.r2"


def test_an_allow_exempts_from_denials_of_lower_priority_only() -> None:
    allow = rule("a", effect="allow", priority=5)
    assert decided(allow, rule("low", priority=4)).rule == "rule.a"
    assert decided(allow, rule("same", priority=5)).rule == "rule.same"
    assert decided(allow, rule("high", priority=6)).rule == "rule.high"


def test_an_allow_opens_nothing_that_the_group_may_not_use() -> None:
    assert decided(rule(effect="allow"), name="forbidden").reason == "tool_denied"


def test_a_rule_holds_from_the_entry_of_the_log_that_brings_it_and_until_it_goes() -> None:
    state = tables()
    call = Call("demo", "tools/call", (Subject("tool", "echo"),))

    def denied_by() -> str:
        decision = decide(state, 1, True, CLAIMS, call)
        return "" if decision.allowed else decision.rule

    assert not denied_by()
    for entry in (rule(condition="tool == 'echo'"), rule(condition="tool == 'other'"), rule("r2")):
        state.apply(key_of(entry), msgspec.json.encode(entry))
        assert (
            denied_by()
            == {"tool == 'echo'": "rule.r1", "tool == 'other'": "", "": "rule.r2"}[entry.condition]
        )
    state.apply("rule.r2", None)
    assert not denied_by()


def test_an_unreadable_rule_denies() -> None:
    state = tables()
    state.apply("rule.r1", b'{"version": 1, "effect": "later"}')
    call = Call("demo", "tools/call", (Subject("tool", "echo"),))
    assert decide(state, 1, True, CLAIMS, call).rule == "rule.r1"


def test_conditions_that_do_not_apply_are_not_run() -> None:
    """Two hundred rules elsewhere: the index of them names none for this call."""
    state = tables(*(rule(f"r{i}", "1 / 0 == 1", servers=[f"s{i}"]) for i in range(200)))
    climb = Climb(state, True, CLAIMS, Call("demo", "tools/call", (Subject("tool", "echo"),)))
    climb.user = state.users["alice"]
    assert list(rules.outcomes(climb)) == []
    assert not rules.read_arguments(climb)
