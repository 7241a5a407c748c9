"""The HTTP API under /api/activity/. Auditors and administrators see everything, members their own calls."""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request

from libs.common.records import Status
from libs.common.web.session import Auditor, Member
from services.activity.domain import (
    MAX_PAGE,
    PAGE,
    AdminEventRow,
    AuthEventRow,
    Call,
    CallFilter,
    Cursor,
    FullCall,
    Methods,
    utc,
    visible_to,
)
from services.activity.store import ActivityStore

router = APIRouter(prefix="/api/activity", tags=["activity"])

Text = Annotated[str, Query(max_length=512)]
Limit = Annotated[int, Query(ge=1, le=MAX_PAGE)]


def call_filter(
    member: Member,
    *,
    user: Annotated[Text, Query(description="an id, or a part of an e-mail address in any case")] = "",
    server: Annotated[Text, Query(description="a part of the slug in any case")] = "",
    tool: Annotated[Text, Query(description="a part of the name in any case")] = "",
    status: Status | Literal[""] = "",
    method: Text = "",
    methods: Methods = "calls",
    since: Annotated[
        datetime | None, Query(alias="from", description="inclusive; UTC unless it says")
    ] = None,
    until: Annotated[datetime | None, Query(alias="to", description="exclusive")] = None,
) -> CallFilter:
    """The filter in the query string, held to what `member` may see."""
    return CallFilter(
        owner=visible_to(member),
        user=user.strip(),
        server=server.strip(),
        tool=tool.strip(),
        status=status,
        method=method.strip(),
        methods=methods,
        since=utc(since) if since else None,
        until=utc(until) if until else None,
    )


def cursor(
    after: Annotated[str, Query(max_length=128, description="`next` of the page before")] = "",
) -> Cursor | None:
    return Cursor.parse(after) if after else None


def activity_store(request: Request) -> ActivityStore:
    store: ActivityStore = request.app.state.store
    return store


Filter = Annotated[CallFilter, Depends(call_filter)]
After = Annotated[Cursor | None, Depends(cursor)]
Store = Annotated[ActivityStore, Depends(activity_store)]


@dataclass
class CallList:
    """Newest first. `next` is the `after` of the following page, or null."""

    items: list[Call]
    next: str | None


@dataclass
class AuthEventList:
    items: list[AuthEventRow]
    next: str | None


@dataclass
class AdminEventList:
    items: list[AdminEventRow]
    next: str | None


@router.get("/calls")
async def list_calls(filter_: Filter, store: Store, after: After, limit: Limit = PAGE) -> CallList:
    page = await store.calls(filter_, after, limit)
    return CallList(page.rows, page.next)


@router.get("/calls/{call}")
async def get_call(member: Member, store: Store, call: str) -> FullCall:
    return await store.call(call, visible_to(member))


@router.get("/auth-events")
async def list_auth_events(_: Auditor, store: Store, after: After, limit: Limit = PAGE) -> AuthEventList:
    page = await store.auth_events(after, limit)
    return AuthEventList(page.rows, page.next)


@router.get("/admin-events")
async def list_admin_events(_: Auditor, store: Store, after: After, limit: Limit = PAGE) -> AdminEventList:
    page = await store.admin_events(after, limit)
    return AdminEventList(page.rows, page.next)


@router.get("/pipeline")
async def get_pipeline(_: Auditor, request: Request) -> dict[str, Any]:
    """How the records arrive: what was landed since the start, what is missing, what waits in the stream."""
    state = request.app.state
    return {
        **asdict(state.ingest.counts),
        "waiting_messages": state.feed.pending,
        "messages_not_ours": state.consumer.not_ours,
        "problem": state.consumer.problem or state.clickhouse.problem,
    }
