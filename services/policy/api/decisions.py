"""Decisions explained, and decided again before something is changed."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query

from libs.common.clock import iso, now
from libs.common.decision.ladder import Call
from libs.common.decision.subjects import LONGEST, USE, Kind, Subject
from libs.common.errors import BadRequest
from libs.common.ids import new_id
from libs.common.records import AdminEvent
from libs.common.web.session import Administrator
from services.policy.dependencies import Work
from services.policy.explain import Question
from services.policy.views import decisions as views
from services.policy.views.base import Moment

router = APIRouter()

Name = Annotated[str, Query(max_length=300)]


@router.get("/explain")
async def explain(  # noqa: PLR0917  # what a call is made of
    _: Administrator,
    work: Work,
    user: Name,
    server: Name,
    tool: str = "",
    prompt: str = "",
    resource: str = "",
    arguments: str = "",
    client: Annotated[str, Query(max_length=2000)] = "",
    client_name: Name = "",
    at: Moment | None = None,
) -> views.ExplanationView:
    """Whether `user` (id or e-mail address) may use the tool, prompt or resource, or else the server, with
    `arguments` (a JSON object) from `client` (a client id), at that time or now: rung by rung."""
    named: dict[Kind, str] = {"tool": tool, "prompt": prompt, "resource": resource}
    call = _call(server, {kind: name for kind, name in named.items() if name}, arguments)
    return views.ExplanationView.of(
        await work.explainer.explain(Question(user, call, client, client_name, at))
    )


@router.post("/replay")
async def replay(admin: Administrator, work: Work, body: views.ReplayBody) -> views.ReplayView:
    """Which of the recorded calls would be decided otherwise. Nothing is changed; the record tells of it, as
    it does of everybody who looks into calls."""
    outcome = await work.replays.replay(body.proposal(), body.days, body.calls)
    work.journal.append(
        AdminEvent(
            id=new_id(),
            time=iso(now()),
            event="calls_replayed",
            actor=admin.id,
            email=admin.email,
            after=body.model_dump_json(),
            revision=outcome.revision,
        )
    )
    return views.ReplayView.of(outcome)


def _call(server: str, named: dict[Kind, str], arguments: str) -> Call:
    if len(named) > 1:
        raise BadRequest("ask for a tool, a prompt or a resource, one at a time")
    if not named:
        return Call(server)
    ((kind, name),) = named.items()
    if len(name) > LONGEST[kind]:
        raise BadRequest(f"{kind} has at most {LONGEST[kind]} characters")
    return Call(server, USE[kind], (Subject(kind, name),), _decoded(arguments))


def _decoded(arguments: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(arguments or "{}", type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise BadRequest(f"arguments must be a JSON object: {error}") from error
