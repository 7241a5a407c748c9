"""Switches of all levels: what is off stands here, `PUT` switches off, and `DELETE` on again.

The organization, which is one, has an empty subject: `/switches/organization/`.
"""

from asyncio import to_thread
from functools import partial

from fastapi import APIRouter
from starlette.responses import Response

from libs.common.web.session import Administrator
from services.policy.api.answers import Limit, answers, deleted, versioned
from services.policy.dependencies import IfMatch, Known, Work, known_user
from services.policy.switches import Level, check_subject
from services.policy.views import switches as views
from services.policy.views.base import Deleted

router = APIRouter()

ONE = "/switches/{level}/{subject:path}"


@router.get("/switches")
async def list_switches(
    _: Administrator, work: Work, after: str = "", limit: Limit = 100
) -> views.SwitchPage:
    """What is switched off. `after` is `<level>/<subject>`."""
    level, _slash, subject = after.partition("/")
    found = await to_thread(work.store.switches.list, (level, subject), limit + 1)
    items = [views.SwitchView.of(switch) for switch in found[:limit]]
    following = f"{items[-1].level}/{items[-1].subject}" if len(found) > limit else None
    return views.SwitchPage(items=items, next=following)


@router.get(ONE, response_model=views.SwitchView)
async def get_switch(_: Administrator, level: Level, subject: str, work: Work) -> Response:
    """404 for what is on."""
    found = await to_thread(work.store.switches.get, level, check_subject(level, subject))
    return versioned(views.SwitchView.of(found))


@router.put(ONE, **answers(views.SwitchChanged))
async def switch_off(  # noqa: PLR0917  # two names in the path
    admin: Administrator,
    level: Level,
    subject: str,
    body: views.OffBody,
    work: Work,
    known: Known,
    precondition: IfMatch,
) -> Response:
    """What is in flight ends with it."""
    check_subject(level, subject)
    if level == "user":
        known_user(known, subject)
    write = partial(work.store.switches.turn_off, level, subject, body.off(), admin.id, precondition)
    done = await work.changes.make(admin, f"{level}_disabled", write)
    assert done.after
    return versioned(views.SwitchChanged.of(done.after, receipt=done.receipt), done.receipt.status)


@router.delete(ONE, **answers(Deleted))
async def switch_on(
    admin: Administrator, level: Level, subject: str, work: Work, precondition: IfMatch
) -> Response:
    """That it is on already is no error."""
    write = partial(work.store.switches.turn_on, level, check_subject(level, subject), precondition)
    return deleted((await work.changes.make(admin, f"{level}_enabled", write)).receipt)
