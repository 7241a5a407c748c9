"""What holds of the ladder in whatever state, with whatever rules."""

from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from libs.common.control.entries import (
    Access,
    AnyEntry,
    Client,
    CredentialVersion,
    Group,
    Member,
    Off,
    Org,
    Revoked,
    Rule,
    RuleScope,
    Server,
    ServerAccess,
    User,
    client_key,
    key_of,
    origin_of,
)
from libs.common.control.tables import Tables
from libs.common.decision.ladder import Call, Climb, decide, explain, may_use
from libs.common.decision.subjects import Subject
from libs.common.tokens import Claims

URL = "http://u.example/mcp"
NAMES = ("a", "b", "c")
CLAIMS = Claims("alice", "g1", "c1", "Client", ("aud",), issued_at=1000, expires_at=9999)

# Each condition with what becomes of it when `arguments.n` is 7: None where it cannot be evaluated.
CONDITIONS: dict[str, bool | None] = {
    "": True,
    "true": True,
    "arguments.n == 7": True,
    "user.id == 'alice' || 1 / 0 == 1": True,
    "false": False,
    "arguments.n > 7": False,
    "1 / 0 == 1": None,
    "arguments.missing": None,
    "arguments.n": None,
    "no CEL at all": None,
}

names = st.sampled_from(NAMES)
accesses: list[Access] = ["allow", "deny"]
access = st.sampled_from(accesses)
scopes: list[RuleScope] = ["organization", "group", "user"]
some = st.lists(names, max_size=2)


def _mostly(value: bool) -> st.SearchStrategy[bool]:
    return st.sampled_from([value] * 7 + [not value])


@st.composite
def rules(draw: st.DrawFn) -> list[Rule]:
    """Rules of few priorities, so that many are equal."""
    return [
        Rule(
            version=1,
            id=f"r{i}",
            name=f"r{i}",
            effect=draw(access),
            priority=draw(st.integers(0, 2)),
            scope=(scope := draw(st.sampled_from(scopes))),
            scope_id="" if scope == "organization" else draw(st.sampled_from(["default", "alice", "bob"])),
            servers=draw(st.lists(st.sampled_from(["demo", "other"]), max_size=1)),
            tools=draw(some),
            condition=draw(st.sampled_from(sorted(CONDITIONS))),
            enabled=draw(_mostly(True)),
        )
        for i in range(draw(st.integers(0, 6)))
    ]


@st.composite
def states(draw: st.DrawFn) -> Tables:
    """Something may be off or missing anywhere, and mostly is not."""
    verdicts = st.dictionaries(names, access, max_size=2)
    servers = {"demo": ServerAccess(default=draw(access), tools=draw(verdicts), prompts=draw(verdicts))}
    held = st.sampled_from([None, None, "", "d1", "d2"])
    pinned = {name: digest for name in NAMES if (digest := draw(held)) is not None}
    entries: list[AnyEntry] = [
        Org(version=1, enabled=draw(_mostly(True))),
        User(version=1, id="alice", email="a@x.example", active=draw(_mostly(True))),
        Server(
            version=1,
            slug="demo",
            name="Demo",
            url=URL,
            enabled=draw(_mostly(True)),
            auth=draw(st.sampled_from(["none", "api_key"])),
            tools=pinned,
            quarantined=draw(st.dictionaries(names, st.sampled_from(["changed", "new"]), max_size=1)),
            tools_off={name: Off() for name in draw(st.lists(names, max_size=1))},
            new_tools=draw(st.sampled_from(["allow", "review"])),
            pinning=draw(st.sampled_from(["enforce", "off"])),
        ),
        Group(
            version=1,
            id="default",
            name="Everyone",
            enabled=draw(_mostly(True)),
            servers=servers if draw(_mostly(True)) else {},
        ),
        Member(version=1, user="alice", group="default", enabled=draw(_mostly(True))),
        Client(version=1, id=client_key("c1"), client_id="c1", enabled=draw(_mostly(True))),
        CredentialVersion(
            version=1, slug="demo", user="organization", origin=origin_of(URL), attention=draw(_mostly(False))
        ),
    ]
    if draw(_mostly(False)):
        entries.append(Revoked(version=1, grant="g1", at=1))
    return _tables(entries, draw(rules()))


def _tables(entries: list[AnyEntry], rules: list[Rule]) -> Tables:
    state = Tables()
    for entry in [*entries, *rules]:
        state.apply(key_of(entry), msgspec.json.encode(entry))
    return state


def _open(given: list[Rule]) -> Tables:
    """Nothing is in the way but the rules."""
    everything: list[AnyEntry] = [
        Org(version=1),
        User(version=1, id="alice", email="a@x.example"),
        Server(version=1, slug="demo", name="Demo", url=URL),
        Group(version=1, id="default", name="Everyone", servers={"demo": ServerAccess()}),
    ]
    return _tables(everything, given)


def _call(kind: Any, name: str) -> Call:
    method = {"tool": "tools/call", "prompt": "prompts/get"}[kind]
    return Call("demo", method, (Subject(kind, name),), {"n": 7})


calls = st.builds(_call, st.sampled_from(["tool", "prompt"]), names)
seen = st.dictionaries(names.map(lambda name: ("demo", name)), st.sampled_from(["d1", "d2"]))


def _documented(given: list[Rule], name: str) -> tuple[bool, str]:
    """What rules.py says in words, for a call of alice's: whether it may go on, and by which rule."""
    scopes = {("organization", ""), ("group", "default"), ("user", "alice")}
    applying = [
        rule
        for rule in given
        if rule.enabled
        and (rule.scope, rule.scope_id) in scopes
        and rule.servers in ([], ["demo"])
        and (not rule.tools or name in rule.tools)
    ]
    for priority in sorted({rule.priority for rule in applying}, reverse=True):
        for effect in ("deny", "allow"):
            for rule in sorted(applying, key=lambda rule: rule.id):
                if (rule.priority, rule.effect) == (priority, effect):
                    became = CONDITIONS[rule.condition]
                    if became is None or became:
                        return became is True and effect == "allow", rule.id
    return True, ""


@given(rules(), names)
def test_rules_decide_as_documented_and_deny_wins(given: list[Rule], name: str) -> None:
    allowed, by = _documented(given, name)
    decision = decide(_open(given), 1, True, CLAIMS, _call("tool", name))
    assert (decision.allowed, decision.rule) == (allowed, f"rule.{by}" if by else "group.default")


@given(rules(), names, st.sampled_from([text for text, became in CONDITIONS.items() if became is None]))
def test_nothing_passes_a_rule_that_raises_and_comes_first(
    given: list[Rule], name: str, condition: str
) -> None:
    for effect in ("allow", "deny"):
        first = Rule(version=1, id="first", name="First", priority=9, effect=effect, condition=condition)
        decision = decide(_open([*given, first]), 1, True, CLAIMS, _call("tool", name))
        assert (decision.reason, decision.rule) == ("rule_failed", "rule.first")


@given(states(), rules(), calls, seen)
def test_rules_only_ever_narrow(state: Tables, given: list[Rule], call: Call, seen: Any) -> None:
    ruled = decide(state, 1, True, CLAIMS, call, seen).allowed
    state.rules = {}
    assert decide(state, 1, True, CLAIMS, call, seen).allowed or not ruled


@given(states(), calls, seen, st.booleans())
def test_explain_and_decide_never_disagree(state: Tables, call: Call, seen: Any, fresh: bool) -> None:
    decision = decide(state, 1, fresh, CLAIMS, call, seen)
    steps = list(explain(Climb(state, fresh, CLAIMS, call, seen)))
    assert all(step.refusal is None for step in steps[:-1])
    refusal = steps[-1].refusal
    assert (refusal is None) is decision.allowed
    if refusal:
        assert (refusal.reason, refusal.rule, refusal.detail) == (
            decision.reason,
            decision.rule,
            decision.detail,
        )


@given(states(), seen)
def test_lists_show_exactly_what_calls_are_allowed(state: Tables, seen: Any) -> None:
    state.rules = {}
    lists = decide(state, 1, True, CLAIMS, Call("demo", "tools/list"), seen)
    shows = may_use(state, state.groups["default"], "demo", seen)
    for call in (_call(kind, name) for kind in ("tool", "prompt") for name in NAMES):
        (subject,) = call.subjects
        allowed = decide(state, 1, True, CLAIMS, call, seen).allowed
        assert allowed is (lists.allowed and shows(subject.kind, subject.name))
