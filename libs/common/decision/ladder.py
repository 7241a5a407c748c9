"""The decision on a call: one pure function over the tables of the control log, without I/O or await.

The rungs, in order. The first that fails names the reason, what decided, and the revision.

    lease → user and grant → organization switch → switches of user, group and client
          → group may use server → server switch
          → for each tool, prompt, resource: group may use it → tool switch → its pin → rules
          → credential present

Whoever may not know of a server or tool gets the same answer as for one that does not exist, switched off or
not; so what a group may use comes before the switches of what it uses (docs/adr/0002-order-of-the-ladder.md).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple, TypeAlias

from libs.common.control.entries import (
    ORGANIZATION,
    Group,
    Server,
    ServerAccess,
    Switched,
    User,
    client_key,
)
from libs.common.control.tables import Tables
from libs.common.decision import rules
from libs.common.decision.resources import ResourceRules
from libs.common.decision.subjects import Kind, Subject
from libs.common.tokens import Claims, InvalidToken, standing
from libs.common.tokens import Reason as TokenReason

Reason: TypeAlias = (
    TokenReason
    | Literal[
        "allowed",
        "lease_expired",
        "organization_disabled",
        "user_disabled",
        "group_disabled",
        "client_disabled",
        "server_unknown",
        "server_not_allowed",
        "server_disabled",
        "tool_denied",
        "prompt_denied",
        "resource_denied",
        "tool_disabled",
        "tool_quarantined",
        "tool_unreviewed",
        "rule_denied",
        "rule_failed",
        "credential_missing",
        "credential_attention",
    ]
)

# The digest of each tool's definition as its upstream showed it last, by server and name.
Seen: TypeAlias = Mapping[tuple[str, str], str]
_NOTHING_SEEN: Seen = {}


@dataclass(frozen=True, slots=True)
class Call:
    """What is asked for. `method` is empty for a stream or the end of a session; it needs all `subjects`.

    `arguments` are those of the tool or prompt, decoded.
    """

    server: str
    method: str = ""
    subjects: tuple[Subject, ...] = ()
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Decision:
    """The verdict. `rule` names what decided, as a key of the control log; `detail` is for the caller."""

    allowed: bool
    reason: Reason
    rule: str
    revision: int
    detail: str = ""
    server: Server | None = None
    group: Group | None = None
    credential: str = ""  # key in `Tables.credentials` of the one to add; empty for none


class Refusal(NamedTuple):
    """Why a rung does not hold. The fields are those of `Decision`."""

    reason: Reason
    rule: str
    detail: str


@dataclass(slots=True)
class Climb:
    """One call on its way up. What a rung finds out stands here for the next."""

    tables: Tables
    fresh: bool
    claims: Claims
    call: Call
    seen: Seen = field(default_factory=dict)
    at: datetime | None = None  # now, if it is not given
    user: User | None = None
    group: Group | None = None
    server: Server | None = None
    access: ServerAccess | None = None
    rule: str = ""  # what allows it, so far
    credential: str = ""


def decide(  # noqa: PLR0917  # what a decision rests on
    tables: Tables, revision: int, fresh: bool, claims: Claims, call: Call, seen: Seen = _NOTHING_SEEN
) -> Decision:
    """Whether `claims` may make `call`, by `tables` as of `revision`. `fresh`: the lease is valid."""
    climb = Climb(tables, fresh, claims, call, seen)
    for rung in RUNGS if call.server else GATEWAY_RUNGS:
        refusal = rung(climb)
        if refusal is not None:
            return Decision(False, *refusal[:2], revision, refusal[2], climb.server, climb.group)
    return Decision(True, "allowed", climb.rule, revision, "", climb.server, climb.group, climb.credential)


class Step(NamedTuple):
    """One rung as `explain` tells it: its name, and why it does not hold, or by what it does."""

    rung: str
    refusal: Refusal | None
    rule: str


def explain(climb: Climb) -> Iterator[Step]:
    """The same climb, rung by rung, ending with the one that does not hold."""
    for rung in RUNGS if climb.call.server else GATEWAY_RUNGS:
        refusal = rung(climb)
        yield Step(rung.__name__, refusal, refusal.rule if refusal else climb.rule)
        if refusal is not None:
            return


# -- the rungs -------------------------------------------------------------------------------------

Rung: TypeAlias = Callable[[Climb], Refusal | None]


def lease(climb: Climb) -> Refusal | None:
    climb.rule = "lease"
    if climb.fresh:
        return None
    return Refusal("lease_expired", "lease", "this replica cannot tell whether its rules are up to date")


def user_and_grant(climb: Climb) -> Refusal | None:
    climb.rule = f"user.{climb.claims.subject}"
    try:
        climb.user = standing(climb.tables, climb.claims)
    except InvalidToken as error:
        return Refusal(error.reason, climb.rule, "the token is no longer valid")
    climb.group = climb.tables.group_of(climb.user.id)
    return None


def organization_switch(climb: Climb) -> Refusal | None:
    climb.rule = "org"
    org = climb.tables.org
    return None if org.enabled else Refusal("organization_disabled", "org", _off("all servers are off", org))


def caller_switches(climb: Climb) -> Refusal | None:
    """Those of the user, the group and the client."""
    tables, user, group = climb.tables, climb.user, climb.group
    assert user
    member = tables.members.get(user.id)
    if member and not member.enabled:
        return Refusal("user_disabled", f"member.{user.id}", _off("you are switched off", member))
    if group and not group.enabled:
        return Refusal("group_disabled", f"group.{group.id}", _off("your group is switched off", group))
    if tables.clients:
        key = client_key(climb.claims.client_id)
        client = tables.clients.get(key)
        if client and not client.enabled:
            return Refusal("client_disabled", f"client.{key}", _off("this client is switched off", client))
    return None


def group_may_use_server(climb: Climb) -> Refusal | None:
    climb.server = climb.tables.servers.get(climb.call.server)
    if climb.server is None:
        return Refusal("server_unknown", "", "there is no such server")
    group, user = climb.group, climb.user
    climb.rule = f"group.{group.id}" if group else f"member.{user.id if user else ''}"
    climb.access = group.servers.get(climb.server.slug) if group else None
    if climb.access is None:
        return Refusal("server_not_allowed", climb.rule, "there is no such server")
    return None


def server_switch(climb: Climb) -> Refusal | None:
    server = climb.server
    assert server
    if server.enabled:
        return None
    return Refusal("server_disabled", f"server.{server.slug}", _off("it is off", server))


def group_may_use_subjects(climb: Climb) -> Refusal | None:
    access, subjects = climb.access, climb.call.subjects
    assert access
    if not subjects:
        return None
    allows = _permission(access)
    for subject in subjects:
        if not allows(subject.kind, subject.name):
            detail = f"your group may not use the {subject.kind} {subject.name[:200]!r}"
            return Refusal(_DENIED[subject.kind], climb.rule, detail)
    return None


def tool_switches_and_pins(climb: Climb) -> Refusal | None:
    server = climb.server
    assert server
    for subject in climb.call.subjects:
        if subject.kind == "tool" and (refusal := _held(server, subject.name, climb.seen)):
            return refusal
    return None


def rules_allow(climb: Climb) -> Refusal | None:
    if not climb.tables.rules or not climb.call.subjects:
        return None
    assert climb.user and climb.server
    verdict = rules.verdict(climb)
    if verdict is None:
        return None
    if verdict.allows:
        climb.rule = verdict.key
        return None
    return Refusal("rule_failed" if verdict.failed else "rule_denied", verdict.key, verdict.detail)


def credential_present(climb: Climb) -> Refusal | None:
    """The user's own before the organization's. It goes only to the origin for which it was stored, whatever
    became of the server's URL."""
    server, user = climb.server, climb.user
    assert server and user
    if server.auth == "none":
        return None
    for owner in (user.id, ORGANIZATION):
        key = f"{server.slug}.{owner}"
        stored = climb.tables.credentials.get(key)
        if stored and stored.is_for(server):
            if stored.attention:
                return Refusal(
                    "credential_attention", f"credential.{key}", "its credential is no longer good"
                )
            climb.credential = key
            return None
    return Refusal("credential_missing", f"server.{server.slug}", "no credential is stored for it")


# What is asked of the gateway as a whole is decided again for each server.
GATEWAY_RUNGS: tuple[Rung, ...] = (lease, user_and_grant, organization_switch, caller_switches)
RUNGS: tuple[Rung, ...] = (
    *GATEWAY_RUNGS,
    group_may_use_server,
    server_switch,
    group_may_use_subjects,
    tool_switches_and_pins,
    rules_allow,
    credential_present,
)


def _held(server: Server, tool: str, seen: Seen) -> Refusal | None:
    """Why `tool` cannot be used by anybody now."""
    key = f"server.{server.slug}"
    if server.tools_off and (off := server.tools_off.get(tool)):
        return Refusal("tool_disabled", key, _off(f"the tool {tool[:200]!r} is off", off))
    if server.pinning == "off":
        return None
    pinned, held = server.tools.get(tool), server.quarantined.get(tool)
    shown = seen.get((server.slug, tool)) if pinned else None
    if held == "changed" or (shown and shown != pinned):
        detail = f"the tool {tool[:200]!r} is not what was approved, and waits for an administrator"
        return Refusal("tool_quarantined", key, detail)
    if held or (pinned is None and server.new_tools == "review"):
        detail = f"the tool {tool[:200]!r} is new here, and waits for an administrator"
        return Refusal("tool_unreviewed", key, detail)
    return None


def way(server: Server) -> tuple[object, ...]:
    """What of a server decides how it is reached. Another way is another upstream."""
    environment = tuple(sorted(server.environment.items()))
    return server.transport, server.url, tuple(server.command), environment, server.processes, server.auth


def goes_elsewhere(before: Decision, now: Decision) -> bool:
    """Whether what was decided `before` would go another way now."""
    return before.server is not None and now.server is not None and way(before.server) != way(now.server)


def moved(before: Decision, now: Decision) -> bool:
    """The same, or with another credential."""
    return goes_elsewhere(before, now) or before.credential != now.credential


MayUse: TypeAlias = Callable[[Kind, str], bool]

_DENIED: dict[Kind, Reason] = {
    "tool": "tool_denied",
    "prompt": "prompt_denied",
    "resource": "resource_denied",
}


def may_use(tables: Tables, group: Group | None, server: str, seen: Seen = _NOTHING_SEEN) -> MayUse:
    """Tells what belongs into the lists that the group's members see: not what is switched off or held."""
    entry = tables.servers.get(server)
    access = group.servers.get(server) if group else None
    if access is None or entry is None:
        return lambda _kind, _name: False
    permits = _permission(access)

    def shows(kind: Kind, name: str) -> bool:
        return permits(kind, name) and (kind != "tool" or _held(entry, name, seen) is None)

    return shows


def _permission(access: ServerAccess) -> MayUse:
    named = {"tool": access.tools, "prompt": access.prompts}
    found: list[ResourceRules] = []  # made when first needed

    def allows(kind: Kind, name: str) -> bool:
        if kind != "resource":
            return named[kind].get(name, access.default) == "allow"
        if not found:
            found.append(ResourceRules(access))
        return found[0].allow(name)

    return allows


def _off(what: str, switch: Switched | Any) -> str:
    until = f" (until {switch.until})" if switch.until else ""
    return f"{what}: {switch.reason}{until}" if switch.reason else what + until
