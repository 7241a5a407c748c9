"""Quotas."""

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


@router.get("/quotas")
async def list_quotas(_: Administrator, work: Work, after: str = "", limit: Limit = 100) -> views.QuotaPage:
    quotas = await to_thread(work.store.quotas.list, after, limit + 1)
    items = [views.QuotaView.of_quota(quota) for quota in quotas[:limit]]
    return views.QuotaPage(items=items, next=items[-1].id if len(quotas) > limit else None)


@router.get("/quotas/{id}", response_model=views.QuotaView)
async def get_quota(_: Administrator, id: str, work: Work) -> Response:
    return versioned(views.QuotaView.of_quota(await to_thread(work.store.quotas.get, id)))


@router.put("/quotas/{id}", **answers(views.QuotaChanged))
async def put_quota(  # noqa: PLR0917  # what a change needs
    admin: Administrator, id: str, body: views.QuotaBody, work: Work, known: Known, precondition: IfMatch
) -> Response:
    """What was counted stays counted when only the limits change."""
    quota = body.quota(id)
    if user := user_of(quota):
        known_user(known, user)
    done = await work.changes.make(admin, "quota_saved", partial(work.store.quotas.put, quota, precondition))
    assert done.after
    view = views.QuotaChanged.of_quota(done.after.entry, receipt=done.receipt)
    return versioned(view, done.receipt.status)


@router.delete("/quotas/{id}", **answers(Deleted))
async def delete_quota(admin: Administrator, id: str, work: Work, precondition: IfMatch) -> Response:
    """That it is not there is no error."""
    write = partial(work.store.quotas.delete, check_id(id, "quota"), precondition)
    return deleted((await work.changes.make(admin, "quota_deleted", write)).receipt)
