"""Everything that can be forbidden: how it is switched off and on again, and which calls that forbids."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

from tests.faults.fleet import GROUPS, SERVERS, Fleet
from tests.faults.load import Call, Caller
from tests.faults.tokens import grant_of
from tests.faults.upstream import TOOLS


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    body: Any = None


@dataclass(frozen=True)
class Change:
    """`owner` is the service that carries it out; `forbids` says whether a call is against it."""

    owner: Literal["auth", "policy"]
    off: Request
    on: Request | None
    forbids: Callable[[Call], bool]
    caller: Caller  # somebody whom it concerns
    slug: str = SERVERS[0]
    tool: str = TOOLS[0]
    # What people do for themselves to be let in again.
    afterwards: Callable[[Fleet], Awaitable[None]] | None = None


def switch(level: str, subject: str, forbids: Callable[[Call], bool], caller: Caller, **more: Any) -> Change:
    path = f"/api/policy/switches/{level}/{subject}"
    off = Request("PUT", path, {"reason": "a test"})
    return Change("policy", off, Request("DELETE", path), forbids, caller, **more)


def organization(fleet: Fleet, chance: Random) -> Change:
    return switch("organization", "", lambda call: True, chance.choice(fleet.load.callers))


def server(fleet: Fleet, chance: Random) -> Change:
    slug = chance.choice(SERVERS)
    caller = chance.choice(fleet.load.callers)
    return switch("server", slug, lambda call: call.slug == slug, caller, slug=slug)


def tool(fleet: Fleet, chance: Random) -> Change:
    slug, name = chance.choice(SERVERS), chance.choice(TOOLS)
    caller = chance.choice(fleet.load.callers)
    subject = f"{slug}/{name}"
    return switch(
        "tool", subject, lambda call: (call.slug, call.tool) == (slug, name), caller, slug=slug, tool=name
    )


def group(fleet: Fleet, chance: Random) -> Change:
    caller = chance.choice(fleet.load.callers)
    return switch("group", caller.group, lambda call: call.caller.group == caller.group, caller)


def user(fleet: Fleet, chance: Random) -> Change:
    caller = chance.choice(fleet.load.callers)
    return switch("user", caller.user, lambda call: call.caller is caller, caller)


def client(fleet: Fleet, chance: Random) -> Change:
    caller = chance.choice(fleet.load.callers)
    return switch("client", caller.client, lambda call: call.caller is caller, caller)


def access_of_a_group(fleet: Fleet, chance: Random) -> Change:
    slug, name = chance.choice(SERVERS), chance.choice(GROUPS)
    caller = next(caller for caller in fleet.load.callers if caller.group == name)
    path = f"/api/policy/groups/{name}/servers/{slug}"
    return Change(
        "policy",
        Request("DELETE", path),
        Request("PUT", path, {"default": "allow"}),
        lambda call: (call.slug, call.caller.group) == (slug, name),
        caller,
        slug,
    )


def tool_of_a_group(fleet: Fleet, chance: Random) -> Change:
    slug, name, denied = chance.choice(SERVERS), chance.choice(GROUPS), chance.choice(TOOLS)
    caller = next(caller for caller in fleet.load.callers if caller.group == name)
    path = f"/api/policy/groups/{name}/servers/{slug}"
    return Change(
        "policy",
        Request("PUT", path, {"default": "allow", "tools": {denied: "deny"}}),
        Request("PUT", path, {"default": "allow"}),
        lambda call: (call.slug, call.caller.group, call.tool) == (slug, name, denied),
        caller,
        slug,
        denied,
    )


def membership(fleet: Fleet, chance: Random) -> Change:
    caller = chance.choice(fleet.load.callers)
    path = f"/api/policy/members/{caller.user}"
    off, on = Request("PUT", path, {"group": "guests"}), Request("PUT", path, {"group": caller.group})
    return Change("policy", off, on, lambda call: call.caller is caller, caller)


def account(fleet: Fleet, chance: Random) -> Change:
    caller = chance.choice(fleet.load.callers)
    path = f"/api/auth/users/{caller.user}"
    off, on = Request("PATCH", path, {"active": False}), Request("PATCH", path, {"active": True})

    async def afterwards(fleet: Fleet) -> None:
        await fleet.connect(caller)

    return Change("auth", off, on, lambda call: call.caller is caller, caller, afterwards=afterwards)


def grant(fleet: Fleet, chance: Random) -> Change:
    caller, slug = chance.choice(fleet.load.callers), chance.choice(SERVERS)
    token = caller.tokens[slug]

    async def afterwards(fleet: Fleet) -> None:
        await fleet.connect(caller)

    off = Request("DELETE", f"/api/auth/grants/{grant_of(token)}")
    return Change("auth", off, None, lambda call: call.token == token, caller, slug, afterwards=afterwards)


LEVELS: dict[str, Callable[[Fleet, Random], Change]] = {
    "organization": organization,
    "server": server,
    "tool": tool,
    "group": group,
    "user": user,
    "client": client,
    "access of a group": access_of_a_group,
    "tool of a group": tool_of_a_group,
    "membership": membership,
    "account": account,
    "grant": grant,
}
