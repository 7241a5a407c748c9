"""The pages: the list of calls and one call in full."""

from datetime import timedelta
from pathlib import Path
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from starlette.responses import RedirectResponse, Response

from libs.common.clock import now
from libs.common.control.entries import User
from libs.common.web.frame import Pages
from libs.common.web.session import Member
from services.activity.api import After, Filter, Store
from services.activity.domain import PAGE, STATUSES, visible_to
from services.activity.store import ActivityStore
from services.activity.views import FILTERS, SHOWN

router = APIRouter(include_in_schema=False)

pages = Pages(Path(__file__).parent / "pages")
pages.filters.update(FILTERS)

# What a filter can say in the URL, and what the links to other pages keep.
ASKABLE = ("user", "server", "tool", "status", "method", "methods", "from", "to")
SUGGEST_FROM = timedelta(days=30)  # what was called since then is suggested in the filter


@router.get("/")
async def show_start() -> Response:
    return RedirectResponse("/activity", 303)


@router.get("/activity")
async def show_calls(
    member: Member, request: Request, filter_: Filter, store: Store, after: After
) -> Response:
    page = await store.calls_with_payloads(filter_, after, PAGE, SHOWN + 1)
    asked = {name: value for name in ASKABLE if (value := request.query_params.get(name))}
    return pages.render(
        request,
        "calls.html",
        calls=page.rows,
        shown=SHOWN,
        filter=filter_,
        narrowed=bool(asked),
        everyone=not visible_to(member),
        refresh=_url({**asked, "after": str(after)} if after else asked),
        newest=_url(asked) if after else None,
        older=_url({**asked, "after": page.next}) if page.next else None,
        statuses=[status for status in STATUSES if status != "admitted"],
        choices=await _choices(request, store, member),
        dates={name: request.query_params.get(name, "") for name in ("from", "to")},
    )


@router.get("/activity/{call}")
async def show_call(member: Member, request: Request, store: Store, call: str) -> Response:
    found = await store.call(call, visible_to(member))
    return pages.render(request, "call.html", call=found)


async def _choices(request: Request, store: ActivityStore, member: User) -> dict[str, list[str]]:
    """Suggestions for the filter; to a member none, who may not know what others use."""
    if visible_to(member):
        return {"servers": [], "tools": [], "users": []}
    users = request.app.state.follower.tables.users.values()
    return {**await store.choices(now() - SUGGEST_FROM), "users": sorted(user.email for user in users)}


def _url(query: dict[str, str]) -> str:
    return f"/activity?{urlencode(query)}" if query else "/activity"
