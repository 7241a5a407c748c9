"""The decision as a table: a state, a call, the verdict and the reason."""

from collections.abc import Callable

import msgspec
import pytest

from libs.common.control.entries import (
    CredentialVersion,
    Group,
    Member,
    Org,
    Revoked,
    Rule,
    Server,
    ServerAccess,
    User,
    key_of,
    origin_of,
)
from libs.common.control.tables import Tables
from libs.common.decision.ladder import Call, decide, may_use
from libs.common.decision.subjects import Kind, Subject
from libs.common.tokens import Claims

CLAIMS = Claims("alice", "g1", "c1", "Client", ("aud",), issued_at=1000, expires_at=9999)


def server(slug: str = "demo", **values: object) -> Server:
    base: dict[str, object] = {"version": 1, "slug": slug, "name": slug, "url": "http://u.example/mcp"}
    return Server(**(base | values))  # type: ignore[arg-type]


def group(id: str = "default", **servers: ServerAccess) -> Group:
    return Group(version=1, id=id, name=id, servers=servers)


def tables(*changes: object) -> Tables:
    """A small organization, in which alice may call everything on `demo` but `forbidden`."""
    state = Tables()
    entries = [
        Org(version=1),
        User(version=1, id="alice", email="alice@x.example", tokens_valid_from=500),
        server(),
        server("hidden"),
        group(demo=ServerAccess(tools={"forbidden": "deny"})),
        *changes,
    ]
    for entry in entries:
        state.apply(key_of(entry), msgspec.json.encode(entry))  # type: ignore[arg-type]
    return state


ORIGIN = origin_of("http://u.example/mcp")


def call(kind: Kind, *names: str) -> Call:
    method = {"tool": "tools/call", "prompt": "prompts/get", "resource": "resources/read"}[kind]
    return Call("demo", method, tuple(Subject(kind, name) for name in names))


CALL = call("tool", "echo")
CASES: dict[str, tuple[Callable[[], Tables], Call, str, str]] = {
    "a tool of an open server": (tables, CALL, "allowed", "group.default"),
    "a list": (tables, Call("demo", "tools/list"), "allowed", "group.default"),
    "a stream": (tables, Call("demo"), "allowed", "group.default"),
    "a denied tool": (tables, call("tool", "forbidden"), "tool_denied", "group.default"),
    "a prompt named like a denied tool": (
        tables,
        call("prompt", "forbidden"),
        "allowed",
        "group.default",
    ),
    "a tool that nobody named, where only named ones are open": (
        lambda: tables(group(demo=ServerAccess(default="deny", tools={"other": "allow"}))),
        CALL,
        "tool_denied",
        "group.default",
    ),
    "a named tool, where only named ones are open": (
        lambda: tables(group(demo=ServerAccess(default="deny", tools={"echo": "allow"}))),
        CALL,
        "allowed",
        "group.default",
    ),
    "a denied prompt": (
        lambda: tables(group(demo=ServerAccess(prompts={"secret": "deny"}))),
        call("prompt", "secret"),
        "prompt_denied",
        "group.default",
    ),
    "a tool named like a denied prompt": (
        lambda: tables(group(demo=ServerAccess(prompts={"echo": "deny"}))),
        CALL,
        "allowed",
        "group.default",
    ),
    "a denied resource": (
        lambda: tables(group(demo=ServerAccess(resources={"file:///secret/*": "deny"}))),
        call("resource", "file:///secret/a"),
        "resource_denied",
        "group.default",
    ),
    "a resource of which another spelling is denied": (
        lambda: tables(group(demo=ServerAccess(resources={"file:///secret/*": "deny"}))),
        call("resource", "file:///x/../%73ecret/a"),
        "resource_denied",
        "group.default",
    ),
    "a stream of updates of several resources, one of them denied": (
        lambda: tables(group(demo=ServerAccess(default="deny", resources={"file:///a": "allow"}))),
        Call("demo", "subscriptions/listen", call("resource", "file:///a", "file:///b").subjects),
        "resource_denied",
        "group.default",
    ),
    "no such server": (tables, Call("nothing"), "server_unknown", ""),
    "a server of other groups": (tables, Call("hidden"), "server_not_allowed", "group.default"),
    "a switched-off server of other groups": (
        lambda: tables(server("hidden", enabled=False)),
        Call("hidden"),
        "server_not_allowed",
        "group.default",
    ),
    "a switched-off server": (lambda: tables(server(enabled=False)), CALL, "server_disabled", "server.demo"),
    "the organization is off": (
        lambda: tables(Org(version=1, enabled=False)),
        CALL,
        "organization_disabled",
        "org",
    ),
    "another group": (
        lambda: tables(Member(version=1, user="alice", group="closed"), group("closed")),
        CALL,
        "server_not_allowed",
        "group.closed",
    ),
    "a group that is gone": (
        lambda: tables(Member(version=1, user="alice", group="gone")),
        CALL,
        "server_not_allowed",
        "member.alice",
    ),
    "an inactive user": (
        lambda: tables(User(version=2, id="alice", email="a@x.example", active=False)),
        CALL,
        "user_inactive",
        "user.alice",
    ),
    "a token from before the user signed out everywhere": (
        lambda: tables(User(version=2, id="alice", email="a@x.example", tokens_valid_from=1001)),
        CALL,
        "token_revoked",
        "user.alice",
    ),
    "a revoked grant": (
        lambda: tables(Revoked(version=1, grant="g1", at=1)),
        CALL,
        "token_revoked",
        "user.alice",
    ),
    "a credential that was stored for another address": (
        lambda: tables(
            server(auth="api_key"),
            CredentialVersion(version=1, slug="demo", user="organization", origin="https://else.example:443"),
        ),
        CALL,
        "credential_missing",
        "server.demo",
    ),
    "a missing credential": (
        lambda: tables(server(auth="api_key")),
        CALL,
        "credential_missing",
        "server.demo",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_verdict_reason_and_rule(name: str) -> None:
    make, call, reason, rule = CASES[name]
    decision = decide(make(), 42, True, CLAIMS, call)
    assert (decision.allowed, decision.reason, decision.rule) == (reason == "allowed", reason, rule)
    assert decision.revision == 42


def test_nobody_gets_anything_from_a_replica_that_is_not_fresh() -> None:
    decision = decide(tables(), 42, False, CLAIMS, CALL)
    assert (decision.allowed, decision.reason) == (False, "lease_expired")


def test_a_users_own_credential_wins_over_the_organizations() -> None:
    keyed = server(auth="api_key")
    shared = CredentialVersion(version=1, slug="demo", user="organization", origin=ORIGIN)
    own = CredentialVersion(version=1, slug="demo", user="alice", origin=ORIGIN)
    assert decide(tables(keyed, shared), 1, True, CLAIMS, CALL).credential == "demo.organization"
    assert decide(tables(keyed, shared, own), 1, True, CLAIMS, CALL).credential == "demo.alice"
    assert decide(tables(), 1, True, CLAIMS, CALL).credential == ""


def test_without_an_entry_for_the_organization_nothing_is_admitted() -> None:
    """A log that was lost and is being written anew."""
    state = tables()
    state.apply("org", None)
    assert decide(state, 1, True, CLAIMS, CALL).reason == "organization_disabled"


def test_nothing_exempts_from_a_rule_that_cannot_be_read() -> None:
    state = tables(Rule(version=1, id="ok", name="ok", effect="allow", priority=1000))
    state.apply("rule.new", b'{"version":1,"id":"new","name":"new","effect":"of a later version"}')
    decision = decide(state, 1, True, CLAIMS, CALL)
    assert (decision.allowed, decision.rule) == (False, "rule.new")
    state.apply("rule.new", None)
    assert decide(state, 1, True, CLAIMS, CALL).allowed


def test_lists_show_exactly_what_calls_are_allowed() -> None:
    kinds: tuple[Kind, ...] = ("tool", "prompt", "resource")
    for access in (
        ServerAccess(),
        ServerAccess(tools={"a": "deny"}, prompts={"a": "deny"}, resources={"a": "deny"}),
        ServerAccess(default="deny"),
        ServerAccess(default="deny", tools={"a": "allow"}, resources={"a*": "allow"}),
    ):
        own = group(demo=access)
        for kind in kinds:
            for name in ("a", "b"):
                called = decide(tables(own), 1, True, CLAIMS, call(kind, name)).allowed
                assert may_use(tables(), own, "demo")(kind, name) is called
    assert not may_use(tables(), None, "demo")("tool", "a")
    assert not may_use(tables(), group(), "demo")("tool", "a")
