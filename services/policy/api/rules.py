"""Rules."""

from asyncio import to_thread
from functools import partial

from fastapi import APIRouter
from starlette.responses import Response

from libs.common.web.session import Administrator
from services.policy.api.answers import Limit, answers, deleted, versioned
from services.policy.dependencies import IfMatch, Known, Work, known_user
from services.policy.names import check_id
from services.policy.rules import user_of
from services.policy.views import rules as views
from services.policy.views.base import Deleted

router = APIRouter()


@router.get("/rules")
async def list_rules(_: Administrator, work: Work, after: str = "", limit: Limit = 100) -> views.RulePage:
    rules = await to_thread(work.store.rules.list, after, limit + 1)
    items = [views.RuleView.of(rule) for rule in rules[:limit]]
    return views.RulePage(items=items, next=items[-1].id if len(rules) > limit else None)


@router.get("/rules/{id}", response_model=views.RuleView)
async def get_rule(_: Administrator, id: str, work: Work) -> Response:
    return versioned(views.RuleView.of(await to_thread(work.store.rules.get, id)))


@router.put("/rules/{id}", **answers(views.RuleChanged))
async def put_rule(  # noqa: PLR0917  # what a change needs
    admin: Administrator, id: str, body: views.RuleBody, work: Work, known: Known, precondition: IfMatch
) -> Response:
    """400 `invalid-condition` says where the mistake is: `line` and `column` from 1, `position` from 0."""
    rule = body.rule(id)
    if user := user_of(rule):
        known_user(known, user)
    done = await work.changes.make(admin, "rule_saved", partial(work.store.rules.put, rule, precondition))
    assert done.after
    view = views.RuleChanged.of(done.after.entry, receipt=done.receipt)
    return versioned(view, done.receipt.status)


@router.delete("/rules/{id}", **answers(Deleted))
async def delete_rule(admin: Administrator, id: str, work: Work, precondition: IfMatch) -> Response:
    """That it is not there is no error."""
    write = partial(work.store.rules.delete, check_id(id, "rule"), precondition)
    return deleted((await work.changes.make(admin, "rule_deleted", write)).receipt)
