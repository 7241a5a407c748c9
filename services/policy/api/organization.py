"""The organization."""

from asyncio import to_thread
from functools import partial

from fastapi import APIRouter
from starlette.responses import Response

from libs.common.web.session import Administrator
from services.policy.api.answers import answers, versioned
from services.policy.changes import Done
from services.policy.dependencies import IfMatch, Work
from services.policy.domain import Organization
from services.policy.views import organization as views
from services.policy.views.switches import SwitchBody

router = APIRouter()


@router.get("/organization", response_model=views.OrganizationView)
async def get_organization(_: Administrator, work: Work) -> Response:
    return versioned(views.OrganizationView.of(await to_thread(work.store.organization.get)))


@router.put("/organization/switch", **answers(views.OrganizationChanged))
async def switch_organization(
    admin: Administrator, body: SwitchBody, work: Work, precondition: IfMatch
) -> Response:
    write = partial(work.store.organization.switch, body.wanted(), admin.id, precondition)
    event = "organization_enabled" if body.enabled else "organization_disabled"
    return _organization_changed(await work.changes.make(admin, event, write))


def _organization_changed(done: Done[Organization]) -> Response:
    assert done.after
    return versioned(views.OrganizationChanged.of(done.after, receipt=done.receipt), done.receipt.status)
