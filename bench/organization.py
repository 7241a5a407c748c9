"""A large organization as entries of the control log."""

import random
from collections.abc import Iterator

from libs.common.control.entries import (
    AnyEntry,
    Group,
    Member,
    Org,
    Quota,
    Rule,
    Server,
    ServerAccess,
    User,
)
from libs.common.decision.pins import digest

TOOLS = 20  # of each server
SERVERS_OF_A_GROUP = 50


def organization(
    users: int, servers: int, groups: int, rules: int, upstream: str = "https://crm.example.com/mcp"
) -> Iterator[AnyEntry]:
    """`users` in `groups`, each of which may use some of `servers`, with `rules` on tools of some of them."""
    yield Org(version=1)
    for n in range(servers):
        tools = {tool(k): digest(f"{n} {k}") for k in range(TOOLS)}
        yield Server(version=1, slug=slug(n), name=f"Server {n}", url=upstream, tools=tools)
    for n in range(groups):
        yield Group(version=1, id=f"group-{n}", name=f"Group {n}", servers=_access(n, servers))
    for n in range(rules):
        yield _rule(n, servers, groups)
    yield Quota(version=1, id="everybody", name="Everybody", of="user", per_day=1_000_000)
    for n in range(users):
        yield User(version=1, id=user(n), email=f"person.{n}@corp.example", name=f"Person Number {n}")
        yield Member(version=1, user=user(n), group=f"group-{n % groups}")


def user(n: int) -> str:
    return f"01hzy3v6qk{n:016d}"


def slug(n: int) -> str:
    return f"server-{n}"


def tool(n: int) -> str:
    return f"find_customers_{n}"


def servers_of(group: int, servers: int) -> list[int]:
    """Those that the group may use: the first for all, the rest of its own choice."""
    chosen = random.Random(group).sample(range(1, servers), min(SERVERS_OF_A_GROUP, servers) - 1)
    return [0, *chosen]


def _access(group: int, servers: int) -> dict[str, ServerAccess]:
    return {
        slug(n): ServerAccess(default="allow", tools={tool(1): "deny"}) for n in servers_of(group, servers)
    }


def _rule(n: int, servers: int, groups: int) -> Rule:
    """Half of the rules are the organization's on one server, half are a group's."""
    scope = {"scope": "group", "scope_id": f"group-{n % groups}"} if n % 2 else {}
    return Rule(
        version=1,
        id=f"rule-{n}",
        name=f"Rule {n}",
        servers=[slug(1 + n % max(1, servers - 1))],
        tools=[tool(2)],
        condition='arguments.amount > 1000 || user.email.endsWith("@contractor.example")',
        **scope,  # type: ignore[arg-type]
    )
