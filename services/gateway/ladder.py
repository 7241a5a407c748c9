"""The decision on a call: one pure function over the tables of the control log, without I/O or await.

The rungs, in order. The first that fails names the reason, what decided, and the revision.

    lease → user and grant → organization switch → group may use server → server switch
          → group may use tool → credential present

Whoever may not know of a server gets the same answer as for one that does not exist, switched off or not;
so what a group may use comes before the server's own switch.
"""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from libs.common.control.entries import ORGANIZATION, Group, Server, User
from libs.common.control.tables import Tables
from libs.common.tokens import Claims, InvalidToken, standing
from libs.common.tokens import Reason as TokenReason

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
        "credential_missing",
    ]
)


@dataclass(frozen=True, slots=True)
class Call:
    """What is asked for. `method` is empty for a stream or the end of a session."""

    server: str
    method: str = ""
    tool: str = ""


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
    server = tables.servers.get(call.server)
    if server is None:
        return refuse("server_unknown", "", "there is no such server")
    access = group.servers.get(server.slug) if group else None
    rule = f"group.{group.id}" if group else f"member.{user.id}"
    if access is None:
        return refuse("server_not_allowed", rule, "there is no such server")
    if not server.enabled:
        return refuse("server_disabled", f"server.{server.slug}", _because("it is off", server.reason))
    if call.method == "tools/call" and access.tools.get(call.tool, access.default) == "deny":
        return refuse("tool_denied", rule, f"your group may not use the tool {call.tool!r}")
    credential = _credential(tables, server, user)
    if credential is None:
        return refuse("credential_missing", f"server.{server.slug}", "no credential is stored for it")
    return Decision(True, "allowed", rule, revision, "", server, group, credential)


def may_use_tool(group: Group | None, server: str, tool: str) -> bool:
    """Whether `tool` belongs into the lists that the group's members see."""
    access = group.servers.get(server) if group else None
    return access is not None and access.tools.get(tool, access.default) == "allow"


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
