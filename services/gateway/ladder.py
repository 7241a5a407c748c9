"""The decision on a call: one pure function over the tables of the control log, without I/O or await.

The rungs, in order. The first that fails names the reason, what decided, and the revision.

    lease → user and grant → organization switch → group may use server → server switch
          → group may use tool, prompt, resource → credential present

Whoever may not know of a server gets the same answer as for one that does not exist, switched off or not;
so what a group may use comes before the server's own switch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from libs.common.control.entries import ORGANIZATION, Group, Server, ServerAccess, User
from libs.common.control.tables import Tables
from libs.common.tokens import Claims, InvalidToken, standing
from libs.common.tokens import Reason as TokenReason
from services.gateway.resources import ResourceRules
from services.gateway.subjects import Kind, Subject

Reason: TypeAlias = (
    TokenReason
    | Literal[
        "allowed",
        "lease_expired",
        "organization_disabled",
        "server_unknown",
        "server_not_allowed",
        "server_disabled",
        "tool_denied",
        "prompt_denied",
        "resource_denied",
        "credential_missing",
    ]
)


@dataclass(frozen=True, slots=True)
class Call:
    """What is asked for. `method` is empty for a stream or the end of a session; it needs all `subjects`."""

    server: str
    method: str = ""
    subjects: tuple[Subject, ...] = ()


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


def decide(  # noqa: PLR0911  # a ladder has as many exits as rungs
    tables: Tables, revision: int, fresh: bool, claims: Claims, call: Call
) -> Decision:
    """Whether `claims` may make `call`, by `tables` as of `revision`. `fresh`: the lease is valid."""

    def refuse(reason: Reason, rule: str, detail: str) -> Decision:
        return Decision(False, reason, rule, revision, detail, server, group)

    server: Server | None = None
    group: Group | None = None
    if not fresh:
        return refuse("lease_expired", "lease", "this replica cannot tell whether its rules are up to date")
    try:
        user = standing(tables, claims)
    except InvalidToken as error:
        return refuse(error.reason, f"user.{claims.subject}", "the token is no longer valid")
    group = tables.group_of(user.id)
    if not tables.org.enabled:
        return refuse("organization_disabled", "org", _because("all servers are off", tables.org.reason))
    if not call.server:  # the gateway as a whole: what is asked of it is decided for each server
        return Decision(True, "allowed", "org", revision, "", None, group)
    server = tables.servers.get(call.server)
    if server is None:
        return refuse("server_unknown", "", "there is no such server")
    access = group.servers.get(server.slug) if group else None
    rule = f"group.{group.id}" if group else f"member.{user.id}"
    if access is None:
        return refuse("server_not_allowed", rule, "there is no such server")
    if not server.enabled:
        return refuse("server_disabled", f"server.{server.slug}", _because("it is off", server.reason))
    if denied := _first_denied(access, call.subjects):
        detail = f"your group may not use the {denied.kind} {denied.name[:200]!r}"
        return refuse(_DENIED[denied.kind], rule, detail)
    credential = _credential(tables, server, user)
    if credential is None:
        return refuse("credential_missing", f"server.{server.slug}", "no credential is stored for it")
    return Decision(True, "allowed", rule, revision, "", server, group, credential)


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


def may_use(group: Group | None, server: str) -> MayUse:
    """Tells what belongs into the lists that the group's members see."""
    access = group.servers.get(server) if group else None
    return _permission(access) if access else lambda _kind, _name: False


def _first_denied(access: ServerAccess, subjects: tuple[Subject, ...]) -> Subject | None:
    if not subjects:
        return None
    allows = _permission(access)
    return next((subject for subject in subjects if not allows(subject.kind, subject.name)), None)


def _permission(access: ServerAccess) -> MayUse:
    named = {"tool": access.tools, "prompt": access.prompts}
    rules: list[ResourceRules] = []  # made when first needed

    def allows(kind: Kind, name: str) -> bool:
        if kind != "resource":
            return named[kind].get(name, access.default) == "allow"
        if not rules:
            rules.append(ResourceRules(access))
        return rules[0].allow(name)

    return allows


def _credential(tables: Tables, server: Server, user: User) -> str | None:
    """Key of the credential to add, the user's own before the organization's; None if one is missing.

    A credential goes only to the origin for which it was stored, whatever became of the server's URL.
    """
    if server.auth == "none":
        return ""
    for owner in (user.id, ORGANIZATION):
        stored = tables.credentials.get(f"{server.slug}.{owner}")
        if stored and stored.is_for(server):
            return f"{server.slug}.{owner}"
    return None


def _because(what: str, reason: str) -> str:
    return f"{what}: {reason}" if reason else what
