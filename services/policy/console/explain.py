"""The page /groups/explain: what somebody sees, and why a call of theirs would be allowed or not."""

from dataclasses import dataclass
from typing import Literal

from fastapi import APIRouter, Request
from starlette.responses import Response

from libs.common.control.entries import Server, User
from libs.common.control.tables import Tables
from libs.common.decision.ladder import RUNGS, may_use
from libs.common.errors import LockgateError
from libs.common.web.session import Administrator
from services.policy.api import decisions
from services.policy.console import people
from services.policy.console.forms import problem, show
from services.policy.dependencies import Known, Work

router = APIRouter()

# The rungs as a person would ask them.
QUESTIONS = {
    "lease": "Does the gateway know the newest rules?",
    "user_and_grant": "Is the user active, and still signed in?",
    "organization_switch": "Is the organization switched on?",
    "caller_switches": "Are user, group and client switched on?",
    "group_may_use_server": "May the group use the server?",
    "server_switch": "Is the server switched on?",
    "group_may_use_subjects": "May the group use this tool, prompt or resource?",
    "tool_switches_and_pins": "Is the tool switched on, and what was approved?",
    "rules_allow": "Do the rules allow it?",
    "credential_present": "Is there a credential, if the server needs one?",
}


@router.get("/groups/explain")
async def explain(  # noqa: PLR0917  # what a call is made of
    request: Request,
    admin: Administrator,
    work: Work,
    known: Known,
    user: str = "",
    server: str = "",
    kind: Literal["tool", "prompt", "resource"] = "tool",
    name: str = "",
    arguments: str = "",
    client: str = "",
) -> Response:
    """With only a user: what they may use everywhere. With a server: that call."""
    account, explanation, error = None, None, None
    try:
        account = people.find_user(known, user) if user.strip() else None
        if account and server:
            explanation = await decisions.explain(
                admin,
                work,
                user=account.id,
                server=server,
                arguments=arguments,
                client=client.strip(),
                tool=name.strip() if kind == "tool" else "",
                prompt=name.strip() if kind == "prompt" else "",
                resource=name.strip() if kind == "resource" else "",
            )
    except LockgateError as caught:
        error = caught
    return show(
        request,
        "explain.html",
        status=error.status if error else 200,
        notice=problem(error, "It cannot be explained"),
        fields={
            "user": user,
            "server": server,
            "kind": kind,
            "name": name,
            "arguments": arguments,
            "client": client,
        },
        servers=sorted(known.servers.values(), key=lambda each: each.slug),
        account=account,
        group=known.group_of(account.id) if account else None,
        sees=_sees(known, account) if account and not server else None,
        explanation=explanation,
        questions=QUESTIONS,
        rungs=[rung.__name__ for rung in RUNGS],
    )


@dataclass(frozen=True, slots=True)
class Sight:
    """A server as a user sees it: the `tools` of which they are told, and how many others there are."""

    server: Server
    tools: list[str]
    hidden: int


def _sees(known: Tables, user: User) -> list[Sight]:
    """The servers that the user's group may use. Rules are about calls: they hide nothing."""
    group = known.group_of(user.id)
    slugs = sorted(group.servers.keys() & known.servers.keys()) if group else []
    return [_sight(known, user, known.servers[slug]) for slug in slugs]


def _sight(known: Tables, user: User, server: Server) -> Sight:
    may = may_use(known, known.group_of(user.id), server.slug)
    tools = sorted(server.tools.keys() | server.quarantined.keys())
    shown = [tool for tool in tools if may("tool", tool)]
    return Sight(server, shown, len(tools) - len(shown))
