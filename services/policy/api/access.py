"""Access as code: the whole of groups, members, rules and quotas as one document.

`GET` gives it, `POST …/plan` says what another one would change, `PUT` makes it so.
"""

import re
from asyncio import to_thread
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Header
from starlette.responses import JSONResponse, Response

from libs.common.control.entries import User
from libs.common.control.tables import Tables
from libs.common.errors import BadRequest
from libs.common.web.session import Administrator
from services.policy.api.answers import answers
from services.policy.dependencies import Known, Parts, Work
from services.policy.document.effects import Effect, effects
from services.policy.document.form import Document
from services.policy.document.state import Difference, State, differences
from services.policy.views import access as views

router = APIRouter()

EFFECTS = 1000  # of a plan
ALL = 1_000_000
_ETAG = re.compile(r'"([0-9a-f]{32})"')

IfMatch = Annotated[str | None, Header(alias="If-Match")]


@router.get("/access", response_model=dict[str, Any])
async def get_access(_: Administrator, work: Work, known: Known) -> Response:
    """The document, without what is as it is by default."""
    state = await to_thread(work.store.documents.state)
    return _tagged(Document.of(state, dict(known.users)).shown(), state.etag)


@router.post("/access/plan")
async def plan_access(_: Administrator, body: Document, work: Work, known: Known) -> views.PlanView:
    """What the document would change, and who would gain and lose what. Nothing is changed."""
    return await to_thread(_plan, body, work, _frozen(known))


@router.put("/access", **answers(views.AppliedView))
async def put_access(
    admin: Administrator, body: Document, work: Work, known: Known, if_match: IfMatch = None
) -> Response:
    """Make everything as the document says, or nothing: with `If-Match`, if it still is as the plan said."""
    tables, etag = _frozen(known), _etag(if_match)
    slugs = await to_thread(work.store.servers.slugs)

    def wish(present: State) -> State:
        return body.state(present, tables.users, slugs)

    changes, receipt = await work.changes.make_all(
        admin, "access_applied", lambda: work.store.documents.apply(wish, etag)
    )
    if not changes:
        receipt = await work.confirmation.receipt()
    state = await to_thread(work.store.documents.state)
    made = [
        Difference(
            change.keys[0],
            change.before.record() if change.before else None,
            change.after.record() if change.after else None,
        )
        for change in changes
    ]
    view = views.AppliedView(etag=state.etag, differences=_views(made, tables.users), receipt=receipt)
    return _tagged(view.model_dump(mode="json"), state.etag, receipt.status)


def _plan(document: Document, work: Parts, tables: Tables) -> views.PlanView:
    present = work.store.documents.state()
    servers = work.store.servers.list(limit=ALL)
    wanted = document.state(present, tables.users, frozenset(server.slug for server in servers))
    shown, more = _first(effects(tables, servers, present, wanted), EFFECTS)
    differing = _views(differences(present, wanted), tables.users)
    return views.PlanView.of(present.etag, differing, shown, more)


def _first(found: Iterable[Effect], most: int) -> tuple[list[Effect], int]:
    every = list(found)
    return every[:most], max(0, len(every) - most)


def _views(found: Iterable[Difference], users: Mapping[str, User]) -> list[views.DifferenceView]:
    return [views.DifferenceView.model_validate(_named(each, users), from_attributes=True) for each in found]


def _named(each: Difference, users: Mapping[str, User]) -> Difference:
    """Members by their e-mail addresses, which is how the document names them."""
    kind, _, name = each.key.partition(".")
    if kind != "member" or name not in users:
        return each
    return replace(each, key=f"member.{users[name].email}")


def _frozen(tables: Tables) -> Tables:
    """The people as they are now: the log goes on while a thread reads them."""
    return replace(tables, users=dict(tables.users))


def _etag(if_match: str | None) -> str | None:
    if if_match is None:
        return None
    matched = _ETAG.fullmatch(if_match)
    if not matched:
        raise BadRequest("If-Match takes the ETag of a plan")
    return matched[1]


def _tagged(body: object, etag: str, status: int = 200) -> Response:
    return JSONResponse(body, status, {"ETag": f'"{etag}"'})
